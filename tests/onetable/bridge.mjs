/*
    The JavaScript OneTable library, driven from Python: one command per line of standard input, one answer per line of
    standard output, both JSON. Started by bridge.py, which says what the commands are; tests/onetable/values.py says how
    values that JSON lacks are written. Ends when its input ends.

    The library is used as it is. Only the time is given: a command's `now_ms` is what `new Date()` and `Date.now()` say,
    so that the stamps which the library makes are the same in every run.
*/
import readline from 'node:readline'
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb'
import { Table } from 'dynamodb-onetable'
import { Dynamo } from 'dynamodb-onetable/Dynamo'

const RealDate = Date
let now = 0

class GivenDate extends RealDate {
    constructor(...args) {
        args.length ? super(...args) : super(now)
    }
    static now() {
        return now
    }
    static [Symbol.hasInstance](value) {
        return RealDate[Symbol.hasInstance].call(RealDate, value)
    }
}
globalThis.Date = GivenDate

//  Standard output carries answers only.
console.log = console.info = console.warn = console.error

const client = new DynamoDBClient({
    endpoint: process.argv[2],
    region: 'us-east-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 1,
})
const tables = {}

function fromTagged(value) {
    if (Array.isArray(value)) return value.map(fromTagged)
    if (value === null || typeof value != 'object') return value
    let [tag, ...more] = Object.keys(value)
    if (more.length == 0) {
        let inner = value[tag]
        if (tag == '$date') return new Date(inner)
        if (tag == '$set') return new Set(inner.map(fromTagged))
        if (tag == '$list') return inner.map(fromTagged)
        if (tag == '$buffer') return Buffer.from(inner, 'base64')
        if (tag == '$bytes') return new Uint8Array(Buffer.from(inner, 'base64'))
        if (tag == '$arraybuffer') return Uint8Array.from(Buffer.from(inner, 'base64')).buffer
        if (tag == '$number') return Number(inner)
    }
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, fromTagged(item)]))
}

function toTagged(value) {
    if (value === undefined) return { $undefined: true }
    if (value === null || typeof value == 'string' || typeof value == 'boolean') return value
    if (typeof value == 'number') return Number.isFinite(value) ? value : { $number: String(value) }
    if (typeof value == 'bigint') return { $bigint: String(value) }
    if (value instanceof Date) return isNaN(value) ? { $date: 'invalid' } : { $date: value.toISOString() }
    if (value instanceof Set) return { $set: [...value].map(toTagged) }
    if (Buffer.isBuffer(value)) return { $buffer: value.toString('base64') }
    if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') }
    if (Array.isArray(value)) return value.map(toTagged)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, toTagged(item)]))
}

//  An attribute value as DynamoDB's own JSON has it: bytes in base64.
function toRaw(value) {
    let [[kind, inner]] = Object.entries(value)
    if (kind == 'B') inner = Buffer.from(inner).toString('base64')
    if (kind == 'BS') inner = inner.map((item) => Buffer.from(item).toString('base64'))
    if (kind == 'L') inner = inner.map(toRaw)
    if (kind == 'M') inner = toRawItem(inner)
    return { [kind]: inner }
}

function toRawItem(item) {
    return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, toRaw(value)]))
}

const commands = {
    async open({ table, schema, context, create }) {
        //  With its default, the client refuses `undefined` inside an object: so do applications that set nothing.
        let opened = new Table({
            client: new Dynamo({ client }),
            name: table,
            schema,
            partial: schema.params?.partial ?? false,
            logger: false,
        })
        opened.setContext(context ?? {})
        if (create) await opened.createTable()
        tables[table] = opened
    },

    async call({ table, model, verb, properties, params }) {
        let answer = await tables[table].getModel(model)[verb](fromTagged(properties), params ?? {})
        return answer === undefined ? null : toTagged(answer)
    },

    async raw({ table }) {
        let items = []
        let page = {}
        do {
            let request = { TableName: table, ConsistentRead: true, ExclusiveStartKey: page.LastEvaluatedKey }
            page = await client.send(new ScanCommand(request))
            items.push(...page.Items.map(toRawItem))
        } while (page.LastEvaluatedKey)
        return items
    },

    async echo({ value }) {
        return toTagged(fromTagged(value))
    },
}

for await (const line of readline.createInterface({ input: process.stdin })) {
    let command = JSON.parse(line)
    let answer
    now = command.now_ms ?? 0
    try {
        answer = { ok: (await commands[command.do](command)) ?? null }
    } catch (error) {
        answer = { error: { name: error.name, code: error.code ?? null, message: String(error.message) } }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
}
client.destroy()
