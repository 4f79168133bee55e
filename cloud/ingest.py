"""What devices send up: decides every operation once, in order, in one transaction with HEAD (rules 4, 5 and 6).

Whoever sends a batch again gets the answer of the first time. An operation that cannot be taken gets a verdict and
harms no other. Generators: every yield is a request to the table or a message. Called by `cloud.relay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, cast

from agent.protocol.errors import MessageError, ModelError
from agent.protocol.keys import HASH_BYTES_MAX, SORT_BYTES_MAX
from agent.protocol.messages import (
    ITEM_BYTES_MAX,
    OPS_MAX,
    QUARANTINE,
    Ack,
    Image,
    Key,
    Kind,
    Op,
    Reset,
    Up,
    Wait,
    decode_image,
)
from agent.protocol.onetable.dates import MS_OLDEST
from agent.protocol.schema import Model, Schema
from cloud import unique
from cloud.answer import Answer
from cloud.config import RelayConfig
from cloud.head import OP, advance, head_key, head_verdicts, mark_of
from cloud.incarnation import Incarnation, incarnation_of
from cloud.orphans import Orphans
from cloud.quarantine import HALTED
from cloud.table import (
    ITEM_ABSENT,
    PK,
    SK,
    Cancelled,
    Check,
    Condition,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Publish,
    Put,
    Request,
    Test,
    Transact,
    Update,
    Work,
)

LOST: Final = "lost"

Action = Put | Delete | Update | Check
Admitted = tuple[Model | None, Image | None, str]  # model and image, or the code of a rejection


class Batch:
    """One `up` message on its way through."""

    __slots__ = ("account", "answer", "device", "epoch", "first_u", "head_key", "message", "ops", "refused")

    def __init__(self, device: str, account: str, message: Up, answer: Answer) -> None:
        self.device = device
        self.account = account
        self.message = message
        self.answer = answer
        self.epoch = message.epoch
        self.first_u = message.first_u
        self.ops = message.ops
        self.head_key = head_key(device)
        self.refused: dict[int, str] = {}  # u -> code, of operations that the table itself would not take


class Decision:
    """What is to be done for some operations, were the table as it was read: `verdicts` of those not accepted."""

    __slots__ = ("actions", "keys", "taking", "verdicts", "voids")

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.keys: list[Key | None] = [None]  # of the actions; the first is HEAD's
        self.taking: set[int] = set()  # of the actions, those that take a unique value
        self.verdicts: dict[int, str] = {}
        self.voids = 0  # of them lost because they came to nothing


class Ingest:
    """One decision a method, so that a check of the checks can take one away."""

    def __init__(
        self,
        schema: Schema,
        config: RelayConfig,
        clock_ms: Callable[[], int],
        counters: Counter[str],
        orphans: Orphans,
        incarnation: Incarnation,
    ) -> None:
        self.incarnation = incarnation
        self.schema = schema
        self.config = config
        self.clock_ms = clock_ms
        self.counters = counters
        self.orphans = orphans

    def up(self, device: str, account: str, message: Up, answer: Answer) -> Work:
        batch = Batch(device, account, message, answer)
        most = OPS_MAX
        tries = 0
        while True:
            head: Item | None = yield Get(batch.head_key)
            if head is not None and HALTED in head:
                self.counters["message_refused_quarantine"] += 1
                yield answer(Wait(hn=message.hn, retry_after=self.config.quarantine_retry_ms, reason=QUARANTINE))
                return
            if head is None or head["epoch"] != batch.epoch:
                self.counters["reset_sent"] += 1
                yield answer(Reset(hn=message.hn, head_epoch=None if head is None else head["epoch"]))
                return
            inc = incarnation_of(head)
            if not self.incarnation.agrees(inc):
                present = yield from self.incarnation.current(inc)
                if present != inc:
                    self.counters["reset_sent"] += 1
                    yield answer(Reset(hn=message.hn, head_epoch=head["epoch"], inc=present))
                    return
            batch.epoch = head["epoch"]  # equal; one text for all items of a device instead of one for each message
            todo = self.left_to_do(batch, head)
            if not todo:
                yield self.ack(batch, head["up"], head.get("upid"), head_verdicts(head))
                return
            todo = self.one_transaction(todo, most)
            if todo[0].kind == "sweep":
                decision = Decision()
                sweep = todo[0]  # one that ends a restatement says of what, and where that began
                in_force = yield from self.orphans.sweep(device, account, batch.epoch, sweep.key[1], sweep.updated)
                if not in_force:
                    continue  # another epoch has been adopted: HEAD says so
            else:
                decision = yield from self.decide_all(batch, todo)
            last = todo[-1]
            kept = self.verdicts_to_keep(batch, head)
            verdicts = {**kept, **decision.verdicts} if decision.verdicts else kept
            changed = None if not decision.verdicts and len(kept) == len(head["verdicts"]) else verdicts
            actions = [advance(batch.head_key, self.head_condition(head), last.u, last.id, changed), *decision.actions]
            failed = yield from self.commit(batch, todo, decision, actions)
            if failed == "":
                self.count(decision)
                if last is batch.ops[-1]:
                    yield self.ack(batch, last.u, last.id, verdicts)
                    return
                most, tries = OPS_MAX, 0
            elif failed == "invalid":
                most = len(todo) // 2 or OPS_MAX
            else:
                tries += 1
                self.counters["transaction_retry"] += 1
                if tries > self.config.transaction_retries:
                    self.counters["transaction_gave_up"] += 1
                    return

    # Rule 4

    def left_to_do(self, batch: Batch, head: Item) -> Sequence[Op]:
        """The operations that HEAD does not cover; none when the batch does not continue what HEAD has."""
        up: int = head["up"]
        ops = batch.ops
        if not self.lineage_holds(batch, up, head.get("upid")):
            self.counters["lineage_refused"] += 1
            return ()
        done = up + 1 - batch.first_u
        if done == 0:
            return ops
        self.counters["duplicate_batch"] += 1
        return ops[done:]

    def lineage_holds(self, batch: Batch, up: int, upid: str | None) -> bool:
        """Whether HEAD's last operation is the one before the batch, or one of it."""
        before = batch.first_u - 1
        if up == before:
            return upid == batch.message.prev_id
        return up > before and (up > batch.ops[-1].u or batch.ops[up - batch.first_u].id == upid)

    def one_transaction(self, todo: Sequence[Op], most: int) -> Sequence[Op]:
        """A sweep goes alone."""
        for index, op in enumerate(todo):
            if op.kind == "sweep":
                return todo[: index or 1][:most]
        return todo if len(todo) <= most else todo[:most]

    # Rule 5

    def decide_all(self, batch: Batch, todo: Sequence[Op]) -> Generator[Request, Any, Decision]:
        """Reads each item of a `both` model, or with unique values, once, then folds the operations of each key in
        order."""
        admitted = [self.admit(batch, op) for op in todo]
        before: dict[Key, Item | None] = {}
        for op, entry in zip(todo, admitted, strict=True):
            model = entry[0]
            if model is not None and (model.receives or model.unique_fields) and op.key not in before:
                before[op.key] = yield Get(op.key)
        return self.fold(batch, todo, admitted, before)

    def admit(self, batch: Batch, op: Op) -> Admitted:
        """The operation's model and image, or the code of its rejection."""
        code = batch.refused.get(op.u)
        if code is not None:
            return _reject(code)
        place = self.schema.locate(op.key)
        if place is None:
            return _reject("unknown-model")
        model = place.model
        if not model.sends:
            return _reject("direction")
        if place.device_id != batch.device or (place.account_id is not None and place.account_id != batch.account):
            return _reject("foreign")
        if len(op.key[0]) + len(op.key[1]) > SORT_BYTES_MAX // 4 and not _key_fits(op.key):
            return _reject("size")
        if op.kind == "delete":
            return model, None, ""
        size_bytes = len(memoryview(op.image))
        if size_bytes > ITEM_BYTES_MAX:
            return _reject("size")
        try:
            image = decode_image(op.image)
            model.check(op.key, image)
            if model.unique_fields:
                model.unique_keys(op.key, image)
        except MessageError:
            return _reject("malformed")
        except ModelError as error:
            return _reject(error.code)
        return model, image, ""

    def fold(
        self,
        batch: Batch,
        todo: Sequence[Op],
        admitted: Sequence[Admitted],
        before: Mapping[Key, Item | None],
    ) -> Decision:
        decision = Decision()
        verdicts = decision.verdicts
        after: dict[Key, Item | None] = {}
        models: dict[Key, Model] = {}  # of `after`
        accepted: dict[Key, list[int]] = {}
        for op, entry in zip(todo, admitted, strict=True):
            key = op.key
            model, image, code = entry
            if model is None:
                verdicts[op.u] = code
                continue
            if model.receives:
                present = after[key] if key in after else before[key]
                stamp_ms = self.stamp(batch, op.updated, model, present)
                if not self.accepts(model, op.kind, stamp_ms, present):
                    verdicts[op.u] = LOST
                    continue
                accepted.setdefault(key, []).append(op.u)
                if image is not None and model.updated_ms(image) != stamp_ms:
                    image = model.stamp(image, stamp_ms)
            after[key] = None if image is None else self.item(batch, op, image)
            models[key] = model
        for key, us in accepted.items():
            if self.is_void(before[key], after[key]):
                verdicts.update(dict.fromkeys(us, LOST))
                decision.voids += len(us)
        self.write(decision, before, after)
        for key, new in after.items():
            model = models[key]
            if model.unique_fields:
                self.write_unique(decision, model, key, before[key], new)
        return decision

    def item(self, batch: Batch, op: Op, image: Image) -> Item:
        return {**image, PK: op.key[0], SK: op.key[1], OP: [batch.device, batch.epoch, op.u, op.id]}

    def stamp(self, batch: Batch, updated_ms: int, model: Model, present: Item | None) -> int:
        """The operation's stamp, cut when it is too far ahead, or older than a date can be; yet a device never loses to
        what it wrote itself."""
        now_ms = self.clock_ms()
        if updated_ms <= now_ms + self.config.future_ms:
            if updated_ms < MS_OLDEST:
                self.counters["stamp_cut"] += 1
            return max(updated_ms, MS_OLDEST)
        self.counters["stamp_cut"] += 1
        if present is not None:
            op = mark_of(present)
            if op is not None and op[0] == batch.device and op[1] == batch.epoch:
                return max(now_ms, model.updated_ms(cast(Image, present)) + 1)
        return now_ms

    def accepts(self, model: Model, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        """Whether an operation takes effect on what is there. What is gone comes back by a create alone."""
        if present is None:
            return kind == "create"
        if model.conflict == "latest":
            return model.updated_ms(cast(Image, present)) < stamp_ms
        if model.conflict == "cloud":
            return mark_of(present) is not None  # what was last written in the cloud stays
        return True  # arrival, device: the cloud's own writers do not pass here, so both mean "the device's, now"

    def is_void(self, before: Item | None, after: Item | None) -> bool:
        """Whether operations on a key came to nothing: no row will tell the device, so the verdict must."""
        return before is None and after is None

    # Rule 6

    def write(self, decision: Decision, before: Mapping[Key, Item | None], after: Mapping[Key, Item | None]) -> None:
        """The actions: what changes, and a check of what was read and stays."""
        for key, new in after.items():
            if key in before:
                old = before[key]
                if new is None and old is None:
                    continue
                condition = self.unchanged(old, new)
            else:
                condition = ()
            decision.actions.append(Delete(key, condition) if new is None else Put(new, condition))
            decision.keys.append(key)
        for key, old in before.items():
            if key not in after or (old is None and after[key] is None):
                decision.actions.append(Check(key, self.unchanged(old, None)))
                decision.keys.append(key)

    def write_unique(self, decision: Decision, model: Model, key: Key, old: Item | None, new: Item | None) -> None:
        """Operations that pass a value on cannot share a transaction: the table says so, and each gets its own."""
        for action in unique.changes(model, key, old, new):
            if isinstance(action, Put):
                decision.taking.add(len(decision.keys))
            decision.actions.append(action)
            decision.keys.append(key)

    def unchanged(self, old: Item | None, new: Item | None) -> Condition:
        """The item is still as it was read: every attribute, and none more of those that would be written."""
        if old is None:
            return ITEM_ABSENT
        if len(old) > self.config.condition_attributes_max:
            self.counters["condition_cut"] += 1
            names: Sequence[str] = ("updated", OP)
            return tuple(("eq", name, old[name]) if name in old else ("absent", name, None) for name in names)
        tests: list[Test] = [("eq", name, value) for name, value in old.items() if name != PK and name != SK]
        absent = [name for name in (new or ()) if name not in old]
        if OP not in old and OP not in absent:
            absent.append(OP)
        tests.extend(("absent", name, None) for name in absent)
        tests.append(("exists", PK, None))
        return tuple(tests)

    def head_condition(self, head: Item) -> Condition:
        return (("eq", "epoch", head["epoch"]), ("eq", "up", head["up"]))

    def verdicts_to_keep(self, batch: Batch, head: Item) -> dict[int, str]:
        """Those that the device may not have seen: its batch begins after what it knows."""
        stored = head["verdicts"]
        return {int(u): code for u, code in stored.items() if int(u) >= batch.first_u} if stored else {}

    def commit(
        self, batch: Batch, todo: Sequence[Op], decision: Decision, actions: Sequence[Action]
    ) -> Generator[Request, Any, str]:
        """Empty when committed, "invalid" when the table would not take it, "again" when somebody else was faster."""
        try:
            if len(actions) == 1:
                yield actions[0]  # type: ignore[misc]
            else:
                yield Transact(tuple(actions))
        except ConditionFailed:
            return "again"
        except Cancelled as error:
            large = {decision.keys[i] for i, reason in enumerate(error.reasons) if reason == "size"}
            batch.refused.update((op.u, "size") for op in todo if op.key in large)
            failed = [i for i, reason in enumerate(error.reasons) if reason == "condition"]
            if decision.taking.issuperset(failed):  # nothing else has changed: the values are taken
                latest = {op.key: op.u for op in todo if op.u not in batch.refused and op.kind != "delete"}
                batch.refused.update((latest[key], "unique") for i in failed if (key := decision.keys[i]) in latest)
            return "again"
        except InvalidRequest:
            if len(todo) == 1:
                if todo[0].u in batch.refused or todo[0].kind == "sweep":
                    raise  # not the operation's fault
                batch.refused[todo[0].u] = "invalid"
            return "invalid"
        return ""

    def count(self, decision: Decision) -> None:
        for code in decision.verdicts.values():
            self.counters["conflict_lost" if code == LOST else f"rejected_{code}"] += 1
        if decision.voids:
            self.counters["conflict_lost"] -= decision.voids
            self.counters["void_op"] += decision.voids

    def ack(self, batch: Batch, up: int, upid: str | None, verdicts: dict[int, str]) -> Publish:
        return batch.answer(Ack(epoch=batch.epoch, up=up, upid=upid, verdicts=verdicts, now=self.clock_ms()))


def _reject(code: str) -> Admitted:
    return None, None, code


def _key_fits(key: Key) -> bool:
    pk, sk = (part.encode("utf-8", "surrogatepass") for part in key)
    return len(pk) <= HASH_BYTES_MAX and len(sk) <= SORT_BYTES_MAX
