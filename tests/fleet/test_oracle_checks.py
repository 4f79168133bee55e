"""Every check fails on a history with one thing wrong, and says which device and which item; a clean history passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from oracle_history import (
    EPOCH,
    STEP_US,
    History,
    audit,
    command,
    config,
    diagnostic,
    fault,
    meter,
    notice,
    order,
    public,
    reading,
    result,
    setting,
    status,
    tariff,
)

from fleet.oracle import NAMES, CheckResult, statements, text_for
from fleet.oracle.checks.quiet import MESSAGES_MAX

D = "home-1"
OTHER = "home-2"


def settled() -> History:
    """Every kind of model has travelled, everything is acknowledged and seen, writes have stopped."""
    h = History()
    for device in h.devices:
        h.head(device, 0)
        for feed in ("device", "account"):
            h.snapshot(device, [], feed=feed)
    h.write(D, status(D), "create")
    h.sync_up(D)
    h.write(D, status(D))
    h.write(D, fault(D, "f1"), "create")
    h.send(D)
    h.send(D, h.up_payload[D])
    h.ingest(D, head_first=False)
    h.ack(D)
    h.verdicts(D)
    h.write(D, fault(D, "f1"), "delete")
    h.sync_up(D)
    h.write(D, fault(D, "f2"), "create")
    h.sync_up(D)
    h.write(D, diagnostic(D), "create")
    h.cloud(audit(D))
    for _ in range(2):
        h.cloud(config(D))
        h.push(D, config(D))
    h.cloud(notice("main"))
    h.log(notice("main"))
    for device in (D, OTHER):
        h.rows(device, notice("main"))
        h.see(device, notice("main"))
    h.write(D, setting(D), "create")
    h.sync_up(D)
    h.log(setting(D))
    h.rows(D, setting(D))
    h.cloud(setting(D))
    h.push(D, setting(D))
    h.write(D, setting(D))
    h.sync_up(D)
    h.log(setting(D))
    h.rows(D, setting(D))
    for _ in range(2):
        h.cloud(command(D, "c0"))
        h.log(command(D, "c0"))
    h.catch_up(D, f"device#{D}")
    h.see(D, command(D, "c0"))
    ended(h)
    h.write(D, meter(D), "create")
    h.pass_s(91)
    h.sync_up(D)
    h.cloud(tariff("main"))
    h.log(tariff("main"))
    for device in (D, OTHER):
        h.rows(device, tariff("main"))
        h.see(device, tariff("main"))
    damaged(h)
    h.oracle.poison_delivered(h.tick(), D, config(D), 7, 7, moved=True)
    h.order(D, "k1")
    h.obey(D, "k1")
    h.order(D, "k2", 600)
    h.obey(D, "k2", "reboot")
    h.hello(D)
    h.boot(D)
    return h


def damaged(h: History) -> None:
    """An item is changed in the table, and lost on the device; digests tell of both."""
    for damage in (h.change, h.lose):
        damage(D, config(D))
        h.compared(D)
        h.compared(D, ["Config"])
        h.heal(D, config(D))
    h.compared(D, ["Config"])  # on its way since before


def ended(h: History) -> None:
    """The lives of a reading and of an order end. The device knows the time."""
    h.hello(D)
    h.ack(D, n=1)
    h.write(D, reading(D), "create", life_s=5)
    h.sync_up(D)
    h.cloud(order(D), life_s=5)
    h.push(D, order(D))
    h.pass_s(6)
    h.expire(D, reading(D))
    h.expire(D, order(D))
    h.sync_up(D)
    h.sweep(order(D))
    h.log(order(D), set={"expired": True})
    h.rows(D, order(D))


def told_the_time(h: History) -> None:
    h.hello(D)
    h.ack(D, n=1)


def has_order(h: History, life_s: int) -> None:
    h.cloud(order(D, "o9"), life_s=life_s)
    h.push(D, order(D, "o9"))


def end(h: History) -> dict[str, CheckResult]:
    for device in h.devices:
        h.oracle.message_account(device, "up", 10, 8, 1, 1, 2)
    h.oracle.healed(h.tick())
    h.oracle.writes_stopped(h.tick())
    return h.finish()


def failed(results: dict[str, CheckResult], name: str, *words: str) -> CheckResult:
    result = results[name]
    assert result.status == "fail", result
    assert result.failed >= 1
    for word in words:
        assert word in result.detail, result.detail
    return result


def words_of(key: tuple[str, str]) -> str:
    return "/".join(key)


def test_a_clean_history_passes_every_check() -> None:
    results = end(settled())
    assert list(results) == list(NAMES)
    assert [(r.name, r.status, r.detail) for r in results.values() if r.status != "pass" or r.detail] == []
    assert all(r.checked for r in results.values())


def test_a_check_that_was_never_evaluated_is_unknown() -> None:
    assert {r.status for r in History().results().values()} == {"unknown"}


def test_without_a_final_read_convergence_is_unknown() -> None:
    results = settled().results()
    assert results["convergence"].status == "unknown"
    assert results["no-acked-write-lost"].status == "pass"


def test_every_check_has_a_statement_of_its_own() -> None:
    assert list(statements()) == list(NAMES)
    assert len(set(statements().values())) == len(NAMES)
    assert all(len(text) > 60 and text.endswith(".") for text in statements().values())


# Each story breaks one thing in a settled history: (check, words that its detail must have, what happens).
Story = Callable[[History], Any]


def _diverged_down(h: History) -> None:
    h.visible[D][config(D)] = {**h.visible[D][config(D)], "period": 7}


def _missing_on_device(h: History) -> None:
    del h.visible[D][config(D)]


def _missing_up(h: History) -> None:
    h.visible[D][fault(D, "f9")] = h.image(fault(D, "f9"), 1)


def _acked_before_commit(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    h.ack(D, up=h.last_u[D])
    h.ingest(D)
    h.ack(D)
    h.verdicts(D)


def _acked_with_another_id(h: History) -> None:
    h.ack(D, upid="other")


def _accepted_without_commit(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    h.head(D, h.last_u[D])
    h.ack(D)
    h.verdicts(D)


def _table_lost_it(h: History) -> None:
    del h.table[status(D)]


def _ack_hides_a_loss(h: History) -> None:
    h.write(D, setting(D))
    h.send(D)
    h.ingest(D, {str(h.last_u[D]): "lost"})
    h.ack(D, verdicts={})


def _never_decided(h: History) -> None:
    h.write(D, status(D))
    h.outbox[D] = []


def _sent_never_decided(h: History) -> None:
    h.write(D, status(D))
    h.send(D)


def _told_otherwise(h: History) -> None:
    h.write(D, setting(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.ingest(D, {str(op.u): "lost"})
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, "synced")


def _told_refused_what_lost(h: History) -> None:
    h.write(D, setting(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.ingest(D, {str(op.u): "lost"})
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, "rejected")


def _told_too_early(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, "synced")


def _head_passes_nothing(h: History) -> None:
    h.head(D, h.last_u[D] + 1)


def _nobody_wrote(h: History) -> None:
    h.commit(config(D), {**h.table[config(D)], "rev": 999, "text": text_for(999, 80)})


def _nobody_deleted(h: History) -> None:
    h.commit(config(D), None)


def _wrong_text(h: History) -> None:
    rev = h.next_rev()
    h.oracle.cloud_wrote(h.tick(), config(D), rev, "put")
    h.commit(config(D), {**h.table[config(D)], "rev": rev})


def _op_never_sent(h: History) -> None:
    h.write(D, status(D))
    h.ingest(D)


def _op_without_write(h: History) -> None:
    h.write(D, status(D))
    op = h.outbox[D].pop()
    image = msgspec.Raw(msgspec.json.encode({**h.image(status(D), 777)}))
    h.outbox[D] = [msgspec.structs.replace(op, image=image, updated=op.updated + 5)]
    h.send(D)


def _torn_on_device(h: History) -> None:
    h.cloud(config(D))
    h.log(config(D))
    h.see(D, config(D), {**h.table[config(D)], "text": "torn"})


def _own_write_gone(h: History) -> None:
    h.write(D, status(D), before=None)


def _read_something_else(h: History) -> None:
    h.oracle.device_read(h.tick(), D, status(D), h.visible[D][status(D)]["rev"])
    h.oracle.device_read(h.tick(), D, status(D), 1)


def _own_write_hidden(h: History) -> None:
    old = h.table[setting(D)]
    h.write(D, setting(D))
    h.see(D, setting(D), old)


def _older_after_accepted(h: History) -> None:
    old = h.table[setting(D)]
    h.write(D, setting(D))
    h.sync_up(D)
    h.see(D, setting(D), old)


def _read_while_hidden(h: History) -> None:
    before = h.table[setting(D)]["rev"]
    h.write(D, setting(D))
    h.sync_up(D)
    h.oracle.device_read(h.tick(), D, setting(D), before)


def _gone_after_boot(h: History) -> None:
    del h.visible[D][diagnostic(D)]
    h.boot(D)


def _back_after_boot(h: History) -> None:
    h.visible[D][fault(D, "f1")] = h.image(fault(D, "f1"), 3)
    h.boot(D)


def _half_written(h: History) -> None:
    h.write(D, status(D), durable=False)
    h.visible[D][status(D)] = h.image(status(D), 1)
    h.boot(D)


def _sync_wrote_up_model(h: History) -> None:
    h.see(D, status(D), {**h.table[status(D)], "rev": 1})


def _step_back(h: History) -> None:
    old = h.table[config(D)]
    h.cloud(config(D))
    h.push(D, config(D))
    h.see(D, config(D), old)


def _step_back_of_all(h: History) -> None:
    old = h.table[notice("main")]
    h.cloud(notice("main"))
    h.log(notice("main"))
    for device in (D, OTHER):
        h.see(device, notice("main"))
    h.see(OTHER, notice("main"), old)


def _never_in_the_table(h: History) -> None:
    h.see(D, config(D), {**h.image(config(D), 555)})


def _came_back(h: History) -> None:
    old = h.table[config(D)]
    h.cloud(config(D), "delete")
    h.push(D, config(D))
    h.see(D, config(D), old)


def _update_revived(h: History) -> None:
    h.cloud(setting(D), "delete")
    h.log(setting(D))
    h.write(D, setting(D))
    h.send(D)
    h.ingest(D)


def _applied_twice(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.ingest(D)
    h.commit(status(D), {**h.item_of(D, op), "rev": 1, "text": text_for(1, 80), "_op": [D, EPOCH, op.u, "other"]})


def _old_batch_applied(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.ingest(D)
    h.ack(D)
    h.verdicts(D)
    h.write(D, status(D))
    h.sync_up(D)
    h.commit(status(D), h.item_of(D, op))


def _apart_from_head(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    h.commit(status(D), h.item_of(D, h.outbox[D][-1]))


def _head_went_back(h: History) -> None:
    h.head(D, 1)


def _old_epoch_applied(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    item = h.item_of(D, h.outbox[D][-1])
    h.commit(status(D), {**item, "_op": [D, "f" * 32, 1, "id1"]})


def _overwrote_newer(h: History) -> None:
    h.write(D, setting(D))
    h.cloud(setting(D))
    h.log(setting(D))
    h.send(D)
    h.ingest(D)


def _deleted_newer(h: History) -> None:
    h.write(D, setting(D), "delete")
    h.cloud(setting(D))
    h.log(setting(D))
    h.send(D)
    h.ingest(D)


def _lost_to_itself(h: History) -> None:
    h.write(D, setting(D))
    h.sync_up(D)
    h.write(D, setting(D))
    h.send(D)
    h.ingest(D, {str(h.last_u[D]): "lost"})


def _row_skipped(h: History) -> None:
    h.cloud(config(D))
    h.log(config(D), seq=h.seqs[f"device#{D}"] + 2)


def _row_rewritten(h: History) -> None:
    h.log(config(D), seq=1, old={"pk": "x", "sk": "y"})


def _row_deleted(h: History) -> None:
    key = (f"_fleet#log#device#{D}", "1700000000000" + "0" * 16 + "#000000000001")
    h.private(key, None, {"ttl": 1})


def _old_image_logged(h: History) -> None:
    old = h.table[config(D)]
    h.cloud(config(D))
    h.push(D, config(D))
    h.log(config(D), old)


def _head_claims_more(h: History) -> None:
    h.cloud(setting(D))
    old = h.table[setting(D)]
    h.write(D, setting(D))
    h.sync_up(D)
    h.log(setting(D), old, set={"head": [EPOCH, h.last_u[D], f"id{h.last_u[D]}"]})


def _never_logged(h: History) -> None:
    h.cloud(config(D))
    h.see(D, config(D))


def _cursor_ahead(h: History) -> None:
    h.cloud(config(D))
    h.log(config(D))
    h.see(D, config(D))
    h.hello(D)


def _cursor_over_a_gap(h: History) -> None:
    for _ in range(2):
        h.cloud(config(D))
        h.log(config(D))
    h.rows(D, config(D))
    h.see(D, config(D))
    h.hello(D)


def _left_out(h: History) -> None:
    for key in (config(D), setting(D)):
        h.cloud(key)
        h.log(key)
    h.catch_up(D, f"device#{D}", without=config(D))
    for key in (config(D), setting(D)):
        h.see(D, key)


def _down_written_by_device(h: History) -> None:
    h.write(D, config(D))


def _local_sent_up(h: History) -> None:
    h.write(D, status(D))
    h.outbox[D][-1] = msgspec.structs.replace(h.outbox[D][-1], key=diagnostic(D))
    h.send(D)


def _cloud_only_sent_down(h: History) -> None:
    message = b'{"t":"rows","feed":"device","epoch":"e","rows":[{"key":["device#home-1","audit#a1"]}]}'
    h.oracle.wire_down(h.tick(), D, message)


def _up_logged(h: History) -> None:
    h.log(status(D), feed=f"device#{D}")


def _local_in_the_table(h: History) -> None:
    h.oracle.cloud_wrote(h.tick(), diagnostic(D), h.next_rev(), "put")
    h.commit(diagnostic(D), {"pk": diagnostic(D)[0], "sk": diagnostic(D)[1], **h.image(diagnostic(D), h.rev)})


def _shown_to_another(h: History) -> None:
    h.oracle.device_saw(h.tick(), OTHER, config(D), 1, None)


def _sent_to_another(h: History) -> None:
    h.cloud(config(D))
    h.log(config(D))
    h.see(D, config(D))
    h.rows(OTHER, config(D))


def _account_to_another(h: History) -> None:
    h.rows("away-1", notice("main"))


def _logged_elsewhere(h: History) -> None:
    h.log(config(D), feed=f"device#{OTHER}")


def _epoch_changed(h: History) -> None:
    h.head(D, 0, set={"epoch": "f" * 32})


def _epoch_minted(h: History) -> None:
    h.identity_changes[D] = 2


def _resent_changed(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    op = h.outbox[D][-1]
    h.send(D, h.batch(D, [msgspec.structs.replace(op, image=msgspec.Raw(b'{"rev":1}'))]))


def _resent_with_more(h: History) -> None:
    h.write(D, status(D))
    h.send(D)
    h.write(D, fault(D, "f5"), "create")
    h.send(D)


def _message_vanished(h: History) -> None:
    h.oracle.message_account(D, "down", 10, 8, 1, 0, 0)


def _echo(h: History) -> None:
    h.oracle.healed(h.tick())
    h.oracle.writes_stopped(h.tick())
    for _ in range(MESSAGES_MAX + 1):
        h.rows(D, config(D))


def _dropped_early(h: History) -> None:
    told_the_time(h)
    has_order(h, 50)
    h.expire(D, order(D, "o9"))


def _dropped_untold(h: History) -> None:
    has_order(h, 5)
    h.boot(D)
    h.pass_s(10)
    h.expire(D, order(D, "o9"))


def _swept_early(h: History) -> None:
    has_order(h, 50)
    h.sweep(order(D, "o9"))


def _gone_without_end(h: History) -> None:
    told_the_time(h)
    h.cloud(order(D, "o9"))
    h.push(D, order(D, "o9"))
    h.expire(D, order(D, "o9"))


def _dropped_late(h: History) -> None:
    told_the_time(h)
    has_order(h, 5)
    h.pass_s(90)
    h.expire(D, order(D, "o9"))


def _shown_over(h: History) -> None:
    told_the_time(h)
    h.cloud(order(D, "o9"), life_s=5)
    h.log(order(D, "o9"))
    h.pass_s(90)
    h.rows(D, order(D, "o9"))
    h.see(D, order(D, "o9"))


def _read_over(h: History) -> None:
    has_order(h, 5)
    h.pass_s(90)


def _sweep_not_flagged(h: History) -> None:
    told_the_time(h)
    has_order(h, 5)
    h.pass_s(6)
    h.expire(D, order(D, "o9"))
    h.sweep(order(D, "o9"))
    h.log(order(D, "o9"))


def _sent_at_once(h: History) -> None:
    told_the_time(h)
    h.write(D, meter(D))
    h.sync_up(D)


def _in_the_file(h: History) -> None:
    h.boot(D, in_file=[config(D), tariff("main")])


def _there_after_boot(h: History) -> None:
    h.boot(D, kept=[tariff("main")])


def _healed_late(h: History) -> None:
    h.change(D, config(D))
    h.heal(D, config(D), 61)


def _never_healed(h: History) -> None:
    h.lose(D, config(D))
    h.oracle.damage_lasts(h.tick(), D, config(D))


def _stopped_at_poison(h: History) -> None:
    h.oracle.poison_delivered(h.tick(), D, config(D), 7, 6, moved=False)


def _alarm_for_nothing(h: History) -> None:
    h.compared(D, ["Setting"])


def _alarm_after_the_heal(h: History) -> None:
    h.lose(D, config(D))
    h.heal(D, config(D))
    h.pass_s(121)
    h.compared(D, ["Config"])


def _alarm_for_another(h: History) -> None:
    h.lose(D, config(D))
    h.compared(OTHER, ["Config"])
    h.heal(D, config(D))


def _done_again(h: History) -> None:
    told_the_time(h)
    h.run(D, "k1")


def _done_unasked(h: History) -> None:
    h.run(D, "c9")


def _not_answered(h: History) -> None:
    h.order(D, "c9")


def test_a_command_that_was_too_old_when_its_device_was_back_is_excused() -> None:
    h = settled()
    h.order(D, "c9")
    h.pass_s(60 + 600)
    told_the_time(h)
    answered = end(h)["command-answered"]
    assert answered.status == "pass" and answered.detail.startswith("1 commands")


def _left_as_started(h: History) -> None:
    told_the_time(h)
    h.order(D, "c9")
    h.answer(D, "c9", "started")
    h.run(D, "c9")


def _answered_otherwise(h: History) -> None:
    h.answer(D, "k1", "failed")


def _answered_and_begun_again(h: History) -> None:
    h.answer(D, "k1", "started")


def _never_done(h: History) -> None:
    h.order(D, "c9")
    h.answer(D, "c9", "done")


def _done_though_refused(h: History) -> None:
    told_the_time(h)
    h.order(D, "c9")
    h.obey(D, "c9", state="refused")


def _done_late(h: History) -> None:
    told_the_time(h)
    h.order(D, "c9", 60)
    h.pass_s(121)
    h.obey(D, "c9")


def _done_unanswered(h: History) -> None:
    h.order(D, "c9")
    h.boot(D)
    h.run(D, "c9")


def _rebooted_again(h: History) -> None:
    told_the_time(h)
    h.pass_s(539)
    h.order(D, "c9")
    h.obey(D, "c9", "reboot")


STORIES: dict[str, tuple[str, str, str, Story]] = {
    "other values": ("convergence", D, words_of(config(D)), _diverged_down),
    "missing on the device": ("convergence", D, words_of(config(D)), _missing_on_device),
    "missing in the table": ("convergence", D, words_of(fault(D, "f9")), _missing_up),
    "acked before the commit": ("no-acked-write-lost", D, "HEAD", _acked_before_commit),
    "acked with another id": ("no-acked-write-lost", D, "other", _acked_with_another_id),
    "accepted without a commit": ("no-acked-write-lost", D, words_of(status(D)), _accepted_without_commit),
    "gone from the table": ("no-acked-write-lost", D, words_of(status(D)), _table_lost_it),
    "an ack hides a loss": ("no-acked-write-lost", D, words_of(setting(D)), _ack_hides_a_loss),
    "never sent": ("every-write-decided", D, words_of(status(D)), _never_decided),
    "sent, never decided": ("every-write-decided", D, words_of(status(D)), _sent_never_decided),
    "told otherwise": ("every-write-decided", D, words_of(setting(D)), _told_otherwise),
    "told that it was refused, and it had lost": (
        "every-write-decided",
        D,
        words_of(setting(D)),
        _told_refused_what_lost,
    ),
    "told too early": ("every-write-decided", D, words_of(status(D)), _told_too_early),
    "HEAD passes what was not sent": ("every-write-decided", D, "operation 15", _head_passes_nothing),
    "nobody wrote it": ("nothing-invented", D, words_of(config(D)), _nobody_wrote),
    "nobody deleted it": ("nothing-invented", D, words_of(config(D)), _nobody_deleted),
    "the text of another write": ("nothing-invented", D, words_of(config(D)), _wrong_text),
    "an operation never sent": ("nothing-invented", D, words_of(status(D)), _op_never_sent),
    "an operation without a write": ("nothing-invented", D, words_of(status(D)), _op_without_write),
    "torn on the device": ("nothing-invented", D, words_of(config(D)), _torn_on_device),
    "an own write is gone": ("read-your-writes", D, words_of(status(D)), _own_write_gone),
    "a plain read finds something else": ("read-your-writes", D, words_of(status(D)), _read_something_else),
    "an undecided write is hidden": ("read-your-writes", D, words_of(setting(D)), _own_write_hidden),
    "older than an accepted write": ("read-your-writes", D, words_of(setting(D)), _older_after_accepted),
    "accepted, then hidden": ("read-your-writes", D, words_of(setting(D)), _read_while_hidden),
    "gone after a boot": ("writes-survive-power-cuts", D, words_of(diagnostic(D)), _gone_after_boot),
    "back after a boot": ("writes-survive-power-cuts", D, words_of(fault(D, "f1")), _back_after_boot),
    "half written": ("writes-survive-power-cuts", D, words_of(status(D)), _half_written),
    "sync wrote an up model": ("up-unchanged-by-sync", D, words_of(status(D)), _sync_wrote_up_model),
    "a step back": ("monotone-reads", D, words_of(config(D)), _step_back),
    "a step back of an account's item": ("monotone-reads", OTHER, words_of(notice("main")), _step_back_of_all),
    "a state that never was": ("monotone-reads", D, words_of(config(D)), _never_in_the_table),
    "came back": ("no-resurrection", D, words_of(config(D)), _came_back),
    "revived by an update": ("no-resurrection", D, words_of(setting(D)), _update_revived),
    "applied twice": ("no-double-apply", D, words_of(status(D)), _applied_twice),
    "an old batch applied": ("no-double-apply", D, words_of(status(D)), _old_batch_applied),
    "applied apart from HEAD": ("no-double-apply", D, words_of(status(D)), _apart_from_head),
    "HEAD went back": ("no-double-apply", D, "HEAD", _head_went_back),
    "an old epoch applied": ("no-double-apply", D, words_of(status(D)), _old_epoch_applied),
    "a newer state overwritten": ("conflict-policy", D, words_of(setting(D)), _overwrote_newer),
    "a newer state deleted": ("conflict-policy", D, words_of(setting(D)), _deleted_newer),
    "lost to itself": ("conflict-policy", D, words_of(setting(D)), _lost_to_itself),
    "a row skipped": ("feed-dense", "", f"device#{D}", _row_skipped),
    "a row rewritten": ("feed-dense", "", f"device#{D}", _row_rewritten),
    "a row deleted": ("feed-dense", "", f"device#{D}", _row_deleted),
    "an old image logged": ("feed-dense", D, words_of(config(D)), _old_image_logged),
    "a row's head claims more": ("feed-dense", D, words_of(setting(D)), _head_claims_more),
    "never logged": ("every-change-logged", D, words_of(config(D)), _never_logged),
    "a cursor ahead of what came": ("no-gap", D, "'device'", _cursor_ahead),
    "a cursor over a gap": ("no-gap", D, "'device'", _cursor_over_a_gap),
    "left out of a catch-up": ("no-gap", D, words_of(config(D)), _left_out),
    "a down model written by the device": ("direction", D, words_of(config(D)), _down_written_by_device),
    "a local model sent up": ("direction", D, words_of(diagnostic(D)), _local_sent_up),
    "a cloud model sent down": ("direction", D, words_of(audit(D)), _cloud_only_sent_down),
    "an up model logged": ("direction", D, words_of(status(D)), _up_logged),
    "a local model in the table": ("direction", D, words_of(diagnostic(D)), _local_in_the_table),
    "shown to another": ("isolation", OTHER, words_of(config(D)), _shown_to_another),
    "sent to another": ("isolation", OTHER, words_of(config(D)), _sent_to_another),
    "sent to another account": ("isolation", "away-1", words_of(notice("main")), _account_to_another),
    "logged elsewhere": ("isolation", OTHER, words_of(config(D)), _logged_elsewhere),
    "HEAD changed its epoch": ("no-epoch-change", D, "epoch", _epoch_changed),
    "an epoch minted": ("no-epoch-change", D, "2 minted", _epoch_minted),
    "resent with a change": ("resend-identical", D, words_of(status(D)), _resent_changed),
    "resent with more": ("resend-identical", D, "in flight", _resent_with_more),
    "a message vanished": ("conservation", D, "10 messages", _message_vanished),
    "dropped too early": ("no-early-expiry", D, words_of(order(D, "o9")), _dropped_early),
    "dropped by its own clock": ("no-early-expiry", D, words_of(order(D, "o9")), _dropped_untold),
    "swept too early": ("no-early-expiry", D, words_of(order(D, "o9")), _swept_early),
    "no end, and gone": ("no-early-expiry", D, words_of(order(D, "o9")), _gone_without_end),
    "dropped late": ("expired-absent", D, words_of(order(D, "o9")), _dropped_late),
    "shown when it was over": ("expired-absent", D, words_of(order(D, "o9")), _shown_over),
    "read at the end": ("expired-absent", D, words_of(order(D, "o9")), _read_over),
    "a sweep logged as any deletion": ("sweeps-logged", D, words_of(order(D, "o9")), _sweep_not_flagged),
    "sent within its period": ("period-kept", D, words_of(meter(D)), _sent_at_once),
    "memory in the file": ("memory-only", D, words_of(tariff("main")), _in_the_file),
    "memory after a boot": ("memory-only", D, words_of(tariff("main")), _there_after_boot),
    "healed too late": ("digest-heals", D, words_of(config(D)), _healed_late),
    "never healed": ("digest-heals", D, words_of(config(D)), _never_healed),
    "stopped at poison": ("poison-passed", D, words_of(config(D)), _stopped_at_poison),
    "an alarm for nothing": ("no-false-alarm", D, "Setting", _alarm_for_nothing),
    "an alarm long after the heal": ("no-false-alarm", D, "Config", _alarm_after_the_heal),
    "an alarm for another device": ("no-false-alarm", OTHER, "Config", _alarm_for_another),
    "done again": ("command-at-most-once", D, words_of(command(D, "k1")), _done_again),
    "done unasked": ("command-at-most-once", D, "c9", _done_unasked),
    "not answered": ("command-answered", D, words_of(command(D, "c9")), _not_answered),
    "left as started": ("command-answered", D, words_of(command(D, "c9")), _left_as_started),
    "answered otherwise": ("command-answered", D, words_of(result(D, "k1")), _answered_otherwise),
    "answered and begun again": ("command-answered", D, words_of(command(D, "k1")), _answered_and_begun_again),
    "answered and never done": ("command-answered", D, words_of(command(D, "c9")), _never_done),
    "done though refused": ("command-answered", D, words_of(command(D, "c9")), _done_though_refused),
    "done late": ("command-not-expired", D, words_of(command(D, "c9")), _done_late),
    "done before an answer": ("command-after-clock", D, words_of(command(D, "c9")), _done_unanswered),
    "rebooted again": ("command-reboots-spaced", D, words_of(command(D, "c9")), _rebooted_again),
    "an echo": ("quiet-after-convergence", D, str(MESSAGES_MAX), _echo),
}


@pytest.mark.parametrize("story", list(STORIES))
def test_a_history_with_one_thing_wrong_fails_its_check(story: str) -> None:
    check, device, words, happens = STORIES[story]
    h = settled()
    happens(h)
    failed(end(h), check, device, words, "expected", "found")


def test_every_check_has_a_story_that_fails_it() -> None:
    assert {check for check, _, _, _ in STORIES.values()} == set(NAMES)


def test_an_outbox_that_is_not_empty_fails_convergence() -> None:
    h = settled()
    h.write(D, status(D))
    failed(end(h), "convergence", D, "1 operations waiting")


def test_only_the_first_failures_are_told_and_all_are_counted() -> None:
    h = settled()
    for _ in range(20):
        h.ack(D, upid="other")
    result = failed(end(h), "no-acked-write-lost", "and 15 more")
    assert result.failed == 20
    assert len(result.first) == 5


# Lives, and what must not be called a failure.


def test_an_item_may_be_hidden_by_a_clock_that_the_relay_has_not_set() -> None:
    h = settled()
    has_order(h, 500)
    hidden = h.visible[D].pop(order(D, "o9"))
    h.boot(D)
    told_the_time(h)
    h.visible[D][order(D, "o9")] = hidden
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert "1 items hidden by a clock" in results["no-early-expiry"].detail


def test_a_device_that_knows_the_time_hides_nothing_too_early() -> None:
    h = settled()
    told_the_time(h)
    h.write(D, reading(D, "r9"), "create", life_s=500)
    h.sync_up(D)
    h.write(D, reading(D, "r9"), "create", before=None, life_s=500)
    h.sync_up(D)
    failed(end(h), "up-unchanged-by-sync", D, words_of(reading(D, "r9")))


@pytest.mark.parametrize("seen", [True, False])
def test_an_item_may_end_here_by_a_shorter_life_that_was_given_in_the_cloud(seen: bool) -> None:
    """What the cloud wrote was over before the device heard of it, or was swept."""
    h = settled()
    told_the_time(h)
    has_order(h, 500)
    h.cloud(order(D, "o9"), life_s=2)
    h.log(order(D, "o9"))
    h.pass_s(5)
    if not seen:
        h.sweep(order(D, "o9"))
        h.log(order(D, "o9"), set={"expired": True})
    h.catch_up(D, f"device#{D}")
    h.expire(D, order(D, "o9"), own=False)
    h.pass_s(100)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


@pytest.mark.parametrize("copied", [True, False])
def test_what_a_copy_held_before_may_have_ended_though_the_other_has_seen_a_longer_life(copied: bool) -> None:
    """It comes to light at the copy when a write over it is lost."""
    h = settled()
    told_the_time(h)
    has_order(h, 2)
    h.cloud(order(D, "o9"), life_s=500)
    h.log(order(D, "o9"))
    h.catch_up(D, f"device#{D}")
    h.see(D, order(D, "o9"), dict(h.table[order(D, "o9")]))
    h.pass_s(5)
    if copied:
        h.oracle.device_cloned(D)
    h.expire(D, order(D, "o9"), own=False)
    results = {result.name: result.status for result in h.results().values()}
    assert (results["no-early-expiry"] == "fail") is not copied, results


def ended_unseen(h: History, life_s: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The device has an item. Until it hears of it again the cloud gives it another life, and one more, and deletes it.
    Returns the states that the device had, and that it is to have before the last."""
    told_the_time(h)
    has_order(h, 500)
    had = dict(h.table[order(D, "o9")])
    h.cloud(order(D, "o9"), life_s=life_s)
    h.log(order(D, "o9"))
    h.cloud(order(D, "o9"), life_s=500)
    h.log(order(D, "o9"))
    later = dict(h.table[order(D, "o9")])
    h.cloud(order(D, "o9"), "delete")
    h.log(order(D, "o9"))
    h.pass_s(5)
    h.catch_up(D, f"device#{D}")
    return had, later


def test_what_follows_a_life_that_was_over_when_it_came_may_still_come() -> None:
    h = settled()
    _, later = ended_unseen(h, 2)
    h.expire(D, order(D, "o9"), own=False)
    h.see(D, order(D, "o9"), later)
    h.see(D, order(D, "o9"), None)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_what_there_was_before_a_life_that_was_over_does_not_come_back() -> None:
    h = settled()
    had, _ = ended_unseen(h, 2)
    h.expire(D, order(D, "o9"), own=False)
    h.see(D, order(D, "o9"), had)
    failed(h.results(), "no-resurrection", D, words_of(order(D, "o9")))


def test_nothing_comes_before_a_deletion_when_no_life_was_over() -> None:
    h = settled()
    _, later = ended_unseen(h, 400)
    h.expire(D, order(D, "o9"), own=False)
    h.see(D, order(D, "o9"), later)
    failed(h.results(), "no-resurrection", D, words_of(order(D, "o9")))


def test_what_was_over_does_not_come_after_the_deletion_that_followed_it() -> None:
    h = settled()
    _, later = ended_unseen(h, 2)
    h.expire(D, order(D, "o9"), own=False)
    h.see(D, order(D, "o9"), later)
    h.see(D, order(D, "o9"), None)
    h.see(D, order(D, "o9"), later)
    failed(h.results(), "no-resurrection", D, words_of(order(D, "o9")))


def test_an_item_that_ends_near_the_final_read_is_not_compared() -> None:
    h = settled()
    told_the_time(h)
    has_order(h, 5)
    h.pass_s(20)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert "1 items that ended too near" in results["expired-absent"].detail


def test_what_is_over_may_wait_in_the_table_for_its_sweep() -> None:
    h = settled()
    told_the_time(h)
    has_order(h, 5)
    h.pass_s(6)
    h.expire(D, order(D, "o9"))
    h.pass_s(100)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert order(D, "o9") in h.table


def test_a_clock_that_was_set_anew_may_end_a_period_early() -> None:
    h = settled()
    h.write(D, meter(D))
    told_the_time(h)
    h.sync_up(D)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert "1 changes sent under a clock that was set anew" in results["period-kept"].detail


def test_a_write_that_lost_may_give_way_to_what_is_older() -> None:
    h = settled()
    before = h.table[setting(D)]
    h.write(D, setting(D))
    h.cloud(setting(D))
    h.log(setting(D))
    h.send(D)
    h.ingest(D, {str(h.last_u[D]): "lost"})
    h.ack(D)
    h.see(D, setting(D), before)
    h.verdicts(D)
    h.rows(D, setting(D))
    h.see(D, setting(D))
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_writes_squashed_before_sending_are_superseded_and_count_as_synced() -> None:
    h = settled()
    synced = h.oracle.updates_synced
    for _ in range(3):
        h.write(D, status(D))
    h.outbox[D] = [msgspec.structs.replace(h.outbox[D][-1], u=h.last_u[D] - 2, id=f"id{h.last_u[D] - 2}")]
    h.last_u[D] -= 2
    h.sync_up(D)
    assert h.oracle.updates_synced == synced + 3
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_operations_of_one_batch_may_fold_into_one_commit() -> None:
    h = settled()
    h.write(D, fault(D, "f7"), "create")
    h.write(D, fault(D, "f7"))
    h.write(D, fault(D, "f8"), "create")
    h.write(D, fault(D, "f8"), "delete")
    h.write(D, setting(D, "new"), "create")
    h.write(D, setting(D, "new"))
    h.sync_up(D)
    h.log(setting(D, "new"))
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_rows_after_a_snapshot_may_repeat_what_ended_while_it_was_on_its_way() -> None:
    h = settled()
    h.hello(D, nonce="n9")
    h.cloud(config(D))
    old = h.table[config(D)]
    h.log(config(D))
    h.cloud(config(D))
    h.snapshot(D, [config(D), setting(D)], nonce="n9")
    h.t -= STEP_US  # what it changes is shown with it
    h.see(D, config(D))
    h.see(D, config(D), old)
    h.push(D, config(D))
    results = end(h)
    assert results["monotone-reads"].status == "pass"
    assert "1 old states that a snapshot or a disk that was set back explains" in results["monotone-reads"].detail


def test_a_snapshot_excuses_no_step_back_once_a_row_has_followed_it() -> None:
    h = settled()
    h.hello(D, nonce="n9")
    old = h.table[config(D)]
    h.snapshot(D, [config(D), setting(D)], nonce="n9")
    h.cloud(config(D))
    h.push(D, config(D))
    h.see(D, config(D), old)
    h.see(D, config(D))
    failed(end(h), "monotone-reads", D, words_of(config(D)))


def test_a_snapshot_does_not_excuse_what_ended_before_its_hello() -> None:
    h = settled()
    old = h.table[config(D)]
    h.cloud(config(D))
    h.push(D, config(D))
    h.hello(D, nonce="n9")
    h.snapshot(D, [config(D), setting(D)], nonce="n9")
    h.see(D, config(D), old)
    h.see(D, config(D))
    failed(end(h), "monotone-reads", D, words_of(config(D)))


@pytest.mark.parametrize("kept", [True, False])
def test_a_write_during_which_the_power_went_may_be_there_or_not(kept: bool) -> None:
    h = settled()
    before = h.visible[D][status(D)]
    h.write(D, status(D), durable=False)
    if not kept:
        h.visible[D][status(D)] = before
        h.outbox[D] = []
        h.last_u[D] -= 1
    h.boot(D)
    if kept:
        h.sync_up(D)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_sync_may_be_one_commit_ahead_of_its_trigger_when_the_power_goes() -> None:
    h = settled()
    h.cloud(config(D))
    h.log(config(D))
    h.rows(D, config(D))
    h.visible[D][config(D)] = public(h.table[config(D)])
    h.boot(D)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results


def test_an_epoch_that_was_never_used_may_be_replaced() -> None:
    h = settled()
    h.head(OTHER, 0, set={"epoch": "f" * 32})
    results = end(h)
    assert results["no-epoch-change"].status == "pass"


def test_a_restored_device_may_mint_and_write_again_what_it_had() -> None:
    h = settled()
    h.oracle.device_restored(h.tick(), D, [(key, image["rev"]) for key, image in h.visible[D].items()])
    h.head(D, 0, set={"epoch": "f" * 32})
    h.identity_changes[D] = 1
    results = end(h)
    assert results["no-epoch-change"].status == "pass"


def sent_anew() -> tuple[History, dict[str, Any], dict[str, Any]]:
    """A device sends again, after its disk was put back, the write that the table has; its stamp becomes another one.
    Returns the item as it was before that write, and with it under its first stamp."""
    new = "f" * 32
    h = settled()
    before = h.table[setting(D)]
    h.write(D, setting(D))
    again = msgspec.structs.replace(h.outbox[D][-1], u=1, id="id1")
    h.sync_up(D)
    h.log(setting(D))
    h.rows(D, setting(D))
    first = h.table[setting(D)]
    h.oracle.device_restored(h.tick(), D, [(key, image["rev"]) for key, image in h.visible[D].items()])
    h.identity_changes[D] = 1
    h.head(D, 0, set={"epoch": new})
    h.outbox[D], h.last_u[D] = [again], 1
    h.send(D, h.batch(D, [again], new))
    t = h.tick()
    h.head(D, 1, set={"epoch": new}, at=t)
    h.commit(setting(D), {**first, "updated": h.stamp(), "_op": [D, new, 1, "id1"]}, at=t)
    h.ack(D, epoch=new)
    h.verdicts(D)
    return h, before, first


def logged_anew(h: History, item: dict[str, Any]) -> dict[str, CheckResult]:
    h.log(setting(D), item, set={"head": ["f" * 32, 1, "id1"]})
    h.rows(D, setting(D))
    h.see(D, setting(D), item)
    return h.results()


def test_a_restored_device_may_send_again_a_write_that_is_there() -> None:
    h, _, _ = sent_anew()
    logged_anew(h, h.table[setting(D)])
    assert [r for r in end(h).values() if r.status == "fail"] == []


@pytest.mark.parametrize("copied", [True, False])
def test_a_row_whose_head_claims_what_was_sent_again_has_that_very_image(copied: bool) -> None:
    h, _, first = sent_anew()
    if copied:  # whose operations nobody knows: one of them may have set the stamp after the row was made
        h.oracle.device_cloned(D)
    h.log(setting(D), first, set={"head": ["f" * 32, 1, "id1"]})
    assert ("operation 1" in h.results()["feed-dense"].detail) is not copied


def test_what_was_before_a_write_that_was_sent_again_is_too_old_for_its_row_and_for_its_device() -> None:
    h, before, _ = sent_anew()
    results = logged_anew(h, before)
    assert results["feed-dense"].status == results["read-your-writes"].status == "fail"


def test_a_write_after_one_that_was_sent_again_is_a_state_of_its_own() -> None:
    h, _, _ = sent_anew()
    again = h.table[setting(D)]
    logged_anew(h, again)
    h.write(D, setting(D))
    op = h.outbox[D][-1]
    h.send(D, h.batch(D, [op], "f" * 32))
    t = h.tick()
    h.head(D, 2, set={"epoch": "f" * 32}, at=t)
    h.commit(setting(D), {**h.item_of(D, op), "_op": [D, "f" * 32, 2, "id2"]}, at=t)
    h.log(setting(D), again, set={"head": ["f" * 32, 2, "id2"]})
    assert "operation 2" in h.results()["feed-dense"].detail


def test_messagepack_is_read_as_json_is() -> None:
    h = settled()
    h.write(D, status(D))
    h.send(D, h.batch(D, h.outbox[D], compact=True))
    h.ingest(D)
    h.ack(D, compact=True)
    h.verdicts(D)
    h.cloud(config(D))
    h.log(config(D))
    h.rows(D, config(D), compact=True)
    h.see(D, config(D))
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert h.oracle.messages_unreadable == 0


def test_bytes_that_are_no_message_are_counted_and_judged_by_nobody() -> None:
    h = settled()
    payloads = (b"", b"{", b"\xc1", b"[1]", b'{"t":1}', b"{" * 5000)
    for payload in payloads:
        h.oracle.wire_up(h.tick(), D, payload)
        h.oracle.wire_down(h.tick(), D, payload)
    assert h.oracle.messages_unreadable == 2 * len(payloads)
    assert all(r.status == "pass" for r in end(h).values())


# Counting.


def test_each_write_counts_once_for_each_receiving_side() -> None:
    h = History()
    for device in h.devices:
        h.head(device, 0)
    h.write(D, status(D), "create")
    h.sync_up(D)
    assert (h.oracle.updates_synced, len(h.up.values), len(h.down.values)) == (1, 1, 0)
    h.cloud(notice("main"))
    h.log(notice("main"))
    h.see(D, notice("main"))
    h.see(OTHER, notice("main"))
    assert (h.oracle.updates_synced, len(h.down.values)) == (3, 2)
    for _ in range(3):
        h.cloud(config(D))
        h.log(config(D))
    h.see(D, config(D))
    assert (h.oracle.updates_synced, len(h.down.values)) == (6, 5)
    h.write(D, setting(D), "create")
    h.sync_up(D)
    h.log(setting(D))
    h.rows(D, setting(D))
    assert (h.oracle.updates_synced, len(h.up.values), len(h.down.values)) == (7, 2, 5)


def test_what_came_and_went_unnoticed_counts_when_the_cursor_has_passed_it() -> None:
    h = settled()
    synced, measured = h.oracle.updates_synced, len(h.down.values)
    h.cloud(command(D, "c1"))
    h.log(command(D, "c1"))
    h.cloud(command(D, "c1"), "delete")
    h.log(command(D, "c1"))
    h.hello(D, seq=h.seqs[f"device#{D}"] - 2)
    assert h.oracle.updates_synced == synced
    h.catch_up(D, f"device#{D}")
    h.hello(D)
    assert h.oracle.updates_synced == synced + 2
    assert len(h.down.values) == measured


def test_convergence_is_timed_from_the_last_heal_over_what_waited_for_it() -> None:
    h = settled()
    h.write(D, status(D))
    first = h.tick()
    h.oracle.healed(first)
    h.send(D)
    second = h.tick()
    h.oracle.healed(second)
    h.ingest(D)
    synced = h.t
    h.ack(D)
    h.verdicts(D)
    h.write(D, status(D))
    h.sync_up(D)
    assert h.oracle.converged_after_s == (synced - second) / 1e6
    assert h.oracle.recovered_s(first) == (synced - first) / 1e6
    assert h.oracle.recovered_s(1) is None


def test_nothing_waited_for_the_heal() -> None:
    h = settled()
    h.oracle.healed(h.tick())
    h.write(D, status(D))
    h.sync_up(D)
    assert h.oracle.converged_after_s == 0.0


def _begin(h: History, epoch: str, name: str) -> None:
    h.log(notice("other", name), epoch=epoch, seq=1)


def test_of_two_workers_that_begin_a_feed_the_later_epoch_lives_and_nothing_is_missed() -> None:
    h = settled()
    for name in ("n1", "n2"):
        h.cloud(notice("other", name))
    _begin(h, "1700000000000" + "b" * 16, "n1")
    _begin(h, "1700000000000" + "a" * 16, "n2")  # found the log empty too, and came late
    h.snapshot("away-1", [])
    for name in ("n1", "n2"):
        h.see("away-1", notice("other", name))
    h.log(notice("other", "n1"), epoch="1700000000000" + "b" * 16, seq=2)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    assert "1 rows of epochs that lost a race to begin" in results["feed-dense"].detail


def test_a_row_of_a_lost_epoch_logs_nothing_that_was_written_after_the_living_one_began() -> None:
    h = settled()
    h.cloud(notice("other", "n1"))
    _begin(h, "1700000000000" + "b" * 16, "n1")
    h.cloud(notice("other", "n2"))
    _begin(h, "1700000000000" + "a" * 16, "n2")
    failed(end(h), "every-change-logged", words_of(notice("other", "n2")))


def test_a_worker_that_read_the_log_before_a_later_epoch_began_may_append_to_the_lost_one() -> None:
    h = settled()
    h.cloud(notice("other", "n1"))
    h.cloud(notice("other", "n2"))
    _begin(h, "1700000000000" + "a" * 16, "n1")
    _begin(h, "1700000000000" + "b" * 16, "n2")
    h.log(notice("other", "n1"), epoch="1700000000000" + "a" * 16, seq=2)
    h.snapshot("away-1", [])
    for name in ("n1", "n2"):
        h.see("away-1", notice("other", name))
    h.log(notice("other", "n1"), epoch="1700000000000" + "b" * 16, seq=2)
    results = end(h)
    assert all(r.status == "pass" for r in results.values()), results
    h = settled()
    h.cloud(notice("other", "n1"))
    _begin(h, "1700000000000" + "a" * 16, "n1")
    _begin(h, "1700000000000" + "b" * 16, "n1")
    h.log(notice("other", "n1"), epoch="1700000000000" + "a" * 16, seq=3)
    failed(end(h), "feed-dense", "account#other")


def test_a_lost_epoch_does_not_go_on() -> None:
    h = settled()
    h.cloud(notice("other", "n1"))
    _begin(h, "1700000000000" + "b" * 16, "n1")
    h.log(notice("other", "n1"), epoch="1700000000000" + "a" * 16, seq=2)
    failed(end(h), "feed-dense", "account#other")
