"""The series of carbon factors of a study, kept beside its charges: whose factor, of which time, and where from."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import BigInteger, Engine, case, cast, func, select

from greensv.energy.books.schema import reading, transaction
from greensv.energy.books.tables import carbon_factors, charges
from greensv.energy.carbon import CarbonFactor, CarbonSource
from greensv.energy.grid.series import ChargeSpan, FactorSeries, FactorSpan
from greensv.errors import CarbonError

UNKNOWN_METHOD = "unknown"
PROVENANCE_LENGTH = 1024  # of the column


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonBook:
    """The carbon factors of one study in its database. Every method is one transaction; any thread may call it."""

    engine: Engine
    study_id: str
    clock: Callable[[], float] = time.time
    """UTC epoch seconds."""

    def record(self, source: CarbonSource, region: str, factors: Iterable[CarbonFactor]) -> None:
        """Keeps factors that have a period of validity, and that do not say again what is kept already.

        One that continues the row before makes that row longer.
        """
        now = self.clock()
        spans = [as_span(source, region, factor, fetched_at=now) for factor in factors]
        kept = FactorSeries(self.spans(source.name, region))
        self._add([span for span in spans if not kept.says(span)])

    def record_failure(self, source: CarbonSource, region: str, period: tuple[float, float], reason: str) -> None:
        """Keeps that there is no factor for a period, and why: its figure is null, never 0."""
        failed = FactorSpan(
            source=source.name,
            region=region,
            method=source.method or UNKNOWN_METHOD,
            valid_from=period[0],
            valid_to=period[1],
            g_per_kwh=None,
            is_estimated=False,
            provenance=reason[:PROVENANCE_LENGTH],
            fetched_at=self.clock(),
        )
        self._add([failed])

    def spans(self, source: str | None = None, region: str | None = None) -> list[FactorSpan]:
        """Returns all that is kept for the study, or of one source and region, in the order it came in."""
        columns = [column for column in carbon_factors.c if column.name not in ("id", "study_id")]
        rows = select(*columns).where(carbon_factors.c.study_id == self.study_id).order_by(carbon_factors.c.id)
        if source is not None:
            rows = rows.where(carbon_factors.c.source == source)
        if region is not None:
            rows = rows.where(carbon_factors.c.region == region)
        with reading(self.engine) as connection:
            found = connection.execute(rows).mappings().all()
        return [FactorSpan(**{**row, "is_estimated": bool(row["is_estimated"])}) for row in found]

    def series(self) -> dict[tuple[str, str, str], FactorSeries]:
        """Returns the stored series by (source, region, method), those that have a figure anywhere."""
        by_key: dict[tuple[str, str, str], list[FactorSpan]] = {}
        for span in self.spans():
            if span.g_per_kwh is not None:
                by_key.setdefault((span.source, span.region, span.method), []).append(span)
        return {key: FactorSeries(spans) for key, spans in by_key.items()}

    def charges(self, *, account: str | None = None, trial_number: int | None = None) -> list[ChargeSpan]:
        """Returns what was charged to the study, or to one account of it, or to one trial."""
        columns = (charges.c[name] for name in ("account", "purpose", "trial_number", "started_at", "ended_at"))
        rows = select(*columns, (charges.c.energy_uj + charges.c.overrun_uj).label("energy_uj"))
        rows = rows.where(charges.c.study_id == self.study_id)
        if account is not None:
            rows = rows.where(charges.c.account == account)
        if trial_number is not None:
            rows = rows.where(charges.c.trial_number == trial_number)
        with reading(self.engine) as connection:
            return [ChargeSpan(**row) for row in connection.execute(rows).mappings()]

    def charges_by_minute(self, account: str) -> list[ChargeSpan]:
        """Returns what was charged to an account, with one span for all charges that began in the same minute.

        The database adds them up, which is quicker than to read them where a long study is looked at over and over.
        """
        minutes = charges.c.started_at / 60.0
        whole = cast(minutes, BigInteger)
        minute = whole - case((whole > minutes, 1), else_=0)  # PostgreSQL rounds where SQLite cuts off
        rows = (
            select(
                func.min(charges.c.started_at).label("started_at"),
                func.max(charges.c.ended_at).label("ended_at"),
                func.sum(charges.c.energy_uj + charges.c.overrun_uj).label("energy_uj"),
            )
            .where(charges.c.study_id == self.study_id, charges.c.account == account)
            .group_by(minute)
            .order_by(minute)
        )
        with reading(self.engine) as connection:
            found = connection.execute(rows).mappings().all()
        return [
            ChargeSpan(
                account=account,
                purpose="",
                trial_number=None,
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                energy_uj=int(row["energy_uj"]),
            )
            for row in found
        ]

    def _add(self, spans: Sequence[FactorSpan]) -> None:
        rows: list[FactorSpan] = []
        for span in spans:
            if rows and _continues(rows[-1], span):
                rows[-1] = replace(rows[-1], valid_to=span.valid_to, fetched_at=span.fetched_at)
            else:
                rows.append(span)
        if not rows:
            return
        with transaction(self.engine) as connection:
            first = rows[0]
            before = connection.execute(
                select(carbon_factors)
                .where(
                    carbon_factors.c.study_id == self.study_id,
                    carbon_factors.c.source == first.source,
                    carbon_factors.c.region == first.region,
                )
                .order_by(carbon_factors.c.id.desc())
                .limit(1)
            ).mappings()
            last = next(iter(before), None)
            if last is not None:
                kept = FactorSpan(**{k: last[k] for k in asdict(first)})
                if _continues(kept, first):
                    longer = {"valid_to": first.valid_to, "fetched_at": first.fetched_at}
                    connection.execute(carbon_factors.update().where(carbon_factors.c.id == last["id"]), longer)
                    rows = rows[1:]
            if rows:
                connection.execute(
                    carbon_factors.insert(),
                    [{**asdict(r), "is_estimated": int(r.is_estimated), "study_id": self.study_id} for r in rows],
                )


def as_span(source: CarbonSource, region: str, factor: CarbonFactor, *, fetched_at: float) -> FactorSpan:
    """Returns a factor as a row of the book.

    Raises:
        CarbonError: the source did not say for which period it is.
    """
    if factor.valid_from is None or factor.valid_to is None:
        raise CarbonError(f"carbon source {source.name!r} gave a series without periods; report this to its authors")
    return FactorSpan(
        source=source.name,
        region=region,
        method=factor.method,
        valid_from=factor.valid_from.timestamp(),
        valid_to=factor.valid_to.timestamp(),
        g_per_kwh=factor.g_per_kwh,
        is_estimated=factor.is_estimated,
        provenance=factor.source[:PROVENANCE_LENGTH],
        fetched_at=fetched_at,
    )


def _continues(before: FactorSpan, after: FactorSpan) -> bool:
    """Whether a row says the same of the time right after, or of the same time and more."""
    same = replace(after, valid_from=before.valid_from, valid_to=before.valid_to, fetched_at=before.fetched_at)
    return same == before and before.valid_from <= after.valid_from <= before.valid_to <= after.valid_to
