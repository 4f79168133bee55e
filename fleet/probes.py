"""The probes: names of the paths that matter, each counted where the path is taken, in agent, relay, world and quotas.

A path that no run takes is not tested, whatever the checks say: a sweep lists the probes that it never hit. Names
alone; tests/fleet/test_probes.py holds them against the source. Names that end in a code stand once for each code.
"""

from __future__ import annotations

from typing import Final

AGENT: Final = """
catchup_asked_again catchup_continued conflict_lost digest_disturbed digest_equal digest_heal_waits digest_healing
digest_left_out digest_restated digest_sent digest_suspected digest_unanswered duplicate_dropped epoch_minted
feed_models_changed gap_seen head_behind incarnation_entered message_refused_malformed rejected relay_models_changed
retransmit rollback_seen row_before_ack row_set_aside snapshot_loaded stale_ack stale_compared stale_reset
stale_snapshot stale_wait wait_heard
"""

COMMANDS: Final = """
command_done command_end_unknown command_expired command_failed command_forgotten command_interrupted
command_not_recorded command_refused command_repeated command_result_missing command_started command_unknown_past
command_withdrawn
"""

RELAY: Final = """
append_conflict catchup_rows condition_cut device_quarantined digest_compared digest_differs digest_mismatch
digest_other_schema digest_oversize digest_skipped duplicate_batch empty_row_appended epoch_adopted feed_epoch_minted
feed_hole feed_unknown incarnation_changed incarnation_read lineage_refused message_refused_overload
message_refused_quarantine message_refused_rate message_refused_unknown message_refused_version rejected_required
rejected_type rejected_unknown-model reset_sent row_expired row_oversize rows_coalesced snapshot_sent stamp_cut
sweep_kept sweep_overtaken sweep_removed sweep_run transaction_gave_up transaction_retry void_op
"""

WORLD: Final = """
answer_lost damage_found_nothing damage_healed damage_put_back damaged_in_table damaged_on_device
disk_full_boot_failed disk_full_session_ended disk_full_write_refused expired_on_device lease_taken_over message_failed
message_lost_with_worker message_redelivered poison_mended poison_overwritten poisoned_in_table poisoned_on_device
poisoned_on_wire power_cut_at_statement quarantine_over queue_full record_failed record_given_up record_redelivered
schema_changed_in_relay schema_changed_on_device table_restored task_timed_out throttled worker_killed
worker_killed_mid_batch worker_stalled write_refused_by_schema zombie_resumed
"""

QUOTAS: Final = """
connect_refused function_queued message_throttled request_throttled table_asked_again
"""

PROBES: Final[tuple[str, ...]] = tuple(dict.fromkeys(" ".join((AGENT, COMMANDS, RELAY, WORLD, QUOTAS)).split()))
