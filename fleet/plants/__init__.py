"""Planted bugs: each takes one rule away from the agent or the relay, to show that the checks can fail.

A plant is a subclass of the real class that gets one decision wrong, put in its place when a world is built with it
(`fleet run … --plant NAME`). They live here, in the simulator: neither the agent nor the relay has a switch for them,
so none can be on in production. Most are real defects of shipped systems; docs/proof.md names them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.protocol.errors import Problem
from cloud.relay import Relay
from fleet.plants import agent, digests, due, relay, remote, schemas
from fleet.world.world import Types


@dataclass(frozen=True, slots=True)
class Plant:
    """`where`: the part that is wrong; `statement`: what it does; `apply`: puts it into a world's types.
    `scenario`: the shipped one where it is caught soonest; `caught_by`: checks that notice, one of them at least."""

    name: str
    where: str
    statement: str
    apply: Callable[[Types], None]
    scenario: str
    caught_by: tuple[str, ...]


def _agent(name: str, attribute: str, kind: type, caught_by: str, scenario: str = "outage") -> Plant:
    def apply(types: Types) -> None:
        setattr(types.agent, attribute, kind)
        types.agent.wants_puback = kind is agent.PubackSession

    return Plant(name, "agent", _statement(kind), apply, scenario, tuple(caught_by.split()))


def _relay(name: str, attribute: str, kind: type, caught_by: str, scenario: str = "outage") -> Plant:
    def apply(types: Types) -> None:
        types.relay = type("PlantedRelay", (Relay,), {attribute: kind})

    return Plant(name, "relay", _statement(kind), apply, scenario, tuple(caught_by.split()))


def _worker(name: str, kind: type[relay.HastyCloud], caught_by: str, scenario: str = "outage") -> Plant:
    def apply(types: Types) -> None:
        types.cloud = kind

    return Plant(name, "relay", _statement(kind), apply, scenario, tuple(caught_by.split()))


def _statement(kind: type) -> str:
    part = getattr(kind, "digests_type", None) if not kind.__doc__ else None
    return " ".join(((part or kind).__doc__ or "").split())


_REMOTE: Final = "remote-commands"
_COPIES: Final = "remote-copies"
_SCHEMAS: Final = "schema-rollout"
_ALL: Final = (
    _relay("ack-before-commit", "ingest_type", relay.HastyIngest, "no-acked-write-lost"),
    _relay("arrival-wins", "ingest_type", relay.ArrivalIngest, "conflict-policy", "conflict"),
    _agent("backlog-in-one-message", "session", agent.WholeOutboxSession, "resend-identical"),
    _agent("changes-lost-on-reboot", "store", agent.ForgetfulStore, "writes-survive-power-cuts every-write-decided"),
    _worker("checkpoint-first", relay.HastyCloud, "convergence every-change-logged"),
    _agent("clear-all-on-ack", "replica", agent.ClearingReplica, "read-your-writes every-write-decided convergence"),
    _relay("clones-live-on", "catchup_type", relay.PatientCatchUp, "no-epoch-change", "clones"),
    _agent("command-again-after-boot", "commander", remote.RepeatingCommander, "command-at-most-once", _REMOTE),
    _agent("command-before-clock", "commander", remote.HastyCommander, "command-after-clock", _REMOTE),
    _agent("command-before-record", "commander", remote.UnrecordedCommander, "command-at-most-once", _REMOTE),
    _agent("command-cut-off-silent", "commander", remote.SilentCommander, "command-answered", _REMOTE),
    _agent("command-expiry-ignored", "commander", remote.PatientCommander, "command-not-expired", _REMOTE),
    _agent("command-of-the-past", "commander", remote.ObedientCommander, "command-at-most-once", _COPIES),
    _agent("command-reboots-always", "commander", remote.RestlessCommander, "command-reboots-spaced", _REMOTE),
    _agent("command-result-dropped", "commander", remote.ForgetfulCommander, "command-at-most-once", _REMOTE),
    _agent("command-unconfirmed", "commander", remote.UnconfirmedCommander, "command-at-most-once", _COPIES),
    _agent("cursor-before-apply", "replica", agent.EarlyCursorReplica, "convergence"),
    _agent("delete-not-sent", "database", agent.ZombieDatabase, "convergence every-write-decided"),
    _agent("deleted-items-return", "replica", agent.MergingReplica, "convergence"),
    _relay("digest-anywhere", "digests_type", digests.AnywhereDigests, "no-false-alarm", "bit-rot"),
    _relay("digest-at-once", "digests_type", digests.HastyDigests, "no-false-alarm", "bit-rot"),
    _relay("digest-counts", "digests_type", digests.CountingDigests, "digest-heals convergence", "bit-rot"),
    _agent("digest-ignored", "session", digests.IdleSession, "digest-heals convergence", "bit-rot"),
    _agent("digest-restores", "session", digests.RestoringSession, "nothing-invented up-unchanged-by-sync", "bit-rot"),
    _relay("direction-forgotten", "sequencer_type", relay.TalkativeSequencer, "direction"),
    _agent("echo", "replica", agent.EchoReplica, "read-your-writes feed-dense convergence"),
    _agent("edit-in-flight", "database", agent.MeddlingDatabase, "resend-identical"),
    _agent("epoch-at-every-boot", "session", agent.MintingSession, "no-epoch-change"),
    _agent("expired-by-own-clock", "database", due.OwnClockDatabase, "no-early-expiry", "lifetimes"),
    _agent("expired-down-stays", "database", due.LastingDatabase, "expired-absent", "lifetimes"),
    _agent("expiry-not-sent", "database", due.SilentExpiryDatabase, "every-write-decided", "lifetimes"),
    _relay("feed-logs-stream-image", "sequencer_type", relay.ImageSequencer, "feed-dense convergence"),
    _relay("feed-overwrites", "sequencer_type", relay.OverwritingSequencer, "feed-dense"),
    _agent("full-disk-ignored", "replica", agent.HeedlessReplica, "convergence no-gap", "full-disk"),
    _agent("gap-skipped", "replica", agent.GapReplica, "convergence no-gap"),
    _relay("head-after-item", "sequencer_type", relay.LateHeadSequencer, "feed-dense", "noisy-neighbour"),
    _relay("incarnation-ignored", "incarnation_type", relay.UnmindfulIncarnation, "convergence", "table-restore"),
    _relay("items-unfenced", "ingest_type", relay.BlindIngest, "conflict-policy", "conflict"),
    _agent(
        "late-rows-roll-back",
        "replica",
        agent.RollingBackReplica,
        "read-your-writes monotone-reads convergence",
        "lossy-links",
    ),
    _agent("memory-in-file", "store", due.FileStore, "memory-only", "lifetimes"),
    _agent("memory-with-cursor", "session", due.KeptCursorSession, "convergence", "lifetimes"),
    _agent("never-asks-again", "session", agent.ForgetfulSession, "convergence"),
    _agent("no-resend", "session", agent.SilentSession, "convergence every-write-decided"),
    _relay("numbers-abandoned", "sequencer_type", relay.CountingSequencer, "feed-dense"),
    _agent("numbers-reused", "session", agent.StubbornSession, "convergence every-write-decided", "device-restore"),
    _agent("offline-edits-dropped", "database", agent.FirstEditDatabase, "read-your-writes"),
    _agent("outbox-cleared-by-puback", "session", agent.PubackSession, "convergence every-write-decided"),
    _agent("overlay-dropped-on-ack", "replica", agent.ImpatientReplica, "read-your-writes"),
    _agent("period-ignored", "database", due.UnheldDatabase, "period-kept", "lifetimes"),
    _agent(
        "period-keeps-first",
        "database",
        due.FirstOfPeriodDatabase,
        "read-your-writes every-write-decided",
        "lifetimes",
    ),
    _agent(
        "period-keeps-removal",
        "database",
        due.KeptRemovalDatabase,
        "every-write-decided convergence read-your-writes",
        "lifetimes",
    ),
    _agent("poison-blocks-feed", "replica", agent.StoppedReplica, "poison-passed convergence", "poison"),
    _agent("refused-sent-again", "replica", agent.StubbornReplica, "nothing-invented convergence", "poison"),
    _agent("relay-schema-unheard", "replica", schemas.DeafReplica, "convergence", _SCHEMAS),
    _relay("renewal-undone", "ingest_type", relay.DeletingIngest, "conflict-policy", "lifetimes"),
    _relay("repeats-applied", "ingest_type", relay.RepeatingIngest, "no-double-apply"),
    _agent("row-taken-for-ack", "replica", agent.RowIsAckReplica, "no-epoch-change resend-identical"),
    _agent(
        "schema-drops-pending", "session", schemas.AmnesiacSession, "every-write-decided read-your-writes", _SCHEMAS
    ),
    _agent("schema-keeps-cursors", "store", schemas.SteadyStore, "convergence", _SCHEMAS),
    _relay("serve-holes", "catchup_type", relay.HoleCatchUp, "convergence no-gap"),
    _agent("snapshot-clears-outbox", "replica", agent.OverwritingReplica, "every-write-decided read-your-writes"),
    _relay("snapshot-from-cache", "catchup_type", relay.CachingCatchUp, "convergence"),
    _relay("sweeps-not-logged", "sequencer_type", relay.SweepBlindSequencer, "sweeps-logged", "lifetimes"),
    _relay("timestamp-cursor", "sequencer_type", relay.StampedSequencer, "every-change-logged"),
    _relay("unfenced-commit", "ingest_type", relay.UnfencedIngest, "no-double-apply"),
    _relay("update-resurrects", "ingest_type", relay.ResurrectingIngest, "no-resurrection", "conflict"),
    _relay("verdicts-forgotten", "ingest_type", relay.ForgetfulIngest, "no-acked-write-lost", "conflict"),
    _relay("void-accepted", "ingest_type", relay.VoidIngest, "convergence", "conflict"),
    _agent("wall-clock-stamps", "database", agent.WallClockDatabase, "conflict-policy", "conflict"),
)
PLANTS: Final[dict[str, Plant]] = {plant.name: plant for plant in _ALL}


def unknown_plant(name: str) -> Problem:
    """What to tell a person who named one that there is not."""
    close = difflib.get_close_matches(name, PLANTS, 1)
    hint = f"did you mean {close[0]!r}?" if close else "one of " + ", ".join(PLANTS)
    return Problem("--plant", 0, 0, name, "no such planted bug", hint)


def types_with(plant: str) -> Types:
    """The classes of a world: all real when `plant` is empty."""
    types = Types()
    if plant:
        PLANTS[plant].apply(types)
    return types
