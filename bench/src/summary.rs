//! From samples to the numbers that are judged: medians over rounds, of ratios within a round.

use crate::{
    cases::{Case, Sample},
    measure::Noise,
    targets::Kind,
};

/// All samples of a case: for each round, for each target.
pub(crate) struct Samples {
    pub(crate) case: Case,
    pub(crate) rounds: Vec<Vec<(Kind, Sample)>>,
    /// The median of the disk's own flush beside each round.
    pub(crate) flush_us: Vec<f64>,
}

/// One row of a case's table.
#[derive(Clone, serde::Serialize)]
pub(crate) struct Row {
    pub(crate) target: Kind,
    /// Transactions or rows a second.
    pub(crate) per_second: f64,
    pub(crate) of_direct: Option<Spread>,
    pub(crate) of_pgbouncer: Option<Spread>,
    pub(crate) of_relay: Option<Spread>,
    /// Of the proxy, for each transaction or row.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) mean_us: Option<f64>,
    pub(crate) median_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Median latency above direct in the same round.
    pub(crate) added_us: Option<f64>,
}

/// The median, least and greatest over rounds.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// The disk's own flush during the run.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Flushes {
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

/// The machine during the run.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct NoiseSeen {
    pub(crate) median: Noise,
    pub(crate) worst: Noise,
}

impl Samples {
    /// The table of this case.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let kinds = Kind::ALL.into_iter();
        kinds.filter_map(|kind| self.row(kind)).collect()
    }

    fn row(&self, target: Kind) -> Option<Row> {
        let of = |sample: fn(&Sample) -> Option<f64>| -> Option<f64> { median(&self.each(target, sample)) };
        Some(Row {
            target,
            per_second: of(|sample| Some(sample.per_second))?,
            of_direct: self.ratio(target, Kind::Direct),
            of_pgbouncer: self.ratio(target, Kind::Pgbouncer),
            of_relay: self.ratio(target, Kind::Relay),
            cpu_us: of(|sample| sample.cpu_us),
            mean_us: of(|sample| Some(sample.latency?.mean_us)),
            median_us: of(|sample| Some(sample.latency?.median_us)),
            p99_us: of(|sample| Some(sample.latency?.p99_us)),
            added_us: median(
                &self.pairs(target, Kind::Direct, |ours, direct| {
                    Some(ours.latency?.median_us - direct.latency?.median_us)
                }),
            ),
        })
    }

    /// One client's added latency beyond `times` the disk's own flush, within each round: what is
    /// left for the gateway itself.
    pub(crate) fn added_beyond_flush_us(&self, target: Kind, times: f64) -> Option<f64> {
        let beyond: Vec<f64> = self
            .rounds
            .iter()
            .zip(&self.flush_us)
            .filter_map(|(round, flush)| {
                let ours = find(round, target)?.latency?.median_us;
                let direct = find(round, Kind::Direct)?.latency?.median_us;
                Some(ours - direct - times * flush)
            })
            .collect();
        median(&beyond)
    }

    pub(crate) fn ratio(&self, target: Kind, base: Kind) -> Option<Spread> {
        Spread::of(&self.pairs(target, base, |ours, base| Some(ours.per_second / base.per_second)))
    }

    fn each(&self, target: Kind, value: fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| value(find(round, target)?)).collect()
    }

    fn pairs(&self, target: Kind, base: Kind, value: fn(&Sample, &Sample) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| value(find(round, target)?, find(round, base)?)).collect()
    }
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values)?,
            least: values.iter().copied().reduce(f64::min)?,
            greatest: values.iter().copied().reduce(f64::max)?,
        })
    }
}

impl Flushes {
    /// From single flushes; none without any.
    pub(crate) fn of(taken_us: &[f64]) -> Option<Self> {
        Some(Self { median_us: median(taken_us)?, p99_us: quantile(taken_us, 0.99) })
    }
}

impl NoiseSeen {
    /// Over the rounds.
    pub(crate) fn of(rounds: &[Noise]) -> Option<Self> {
        let others: Vec<f64> = rounds.iter().map(|noise| noise.others).collect();
        let stolen: Vec<f64> = rounds.iter().map(|noise| noise.stolen).collect();
        let (others, stolen) = (Spread::of(&others)?, Spread::of(&stolen)?);
        Some(Self {
            median: Noise { others: others.median, stolen: stolen.median },
            worst: Noise { others: others.greatest, stolen: stolen.greatest },
        })
    }
}

/// The median; none without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(values, 0.5))
}

/// The value below which `share` of all lie, between neighbours by their distance; 0 without values.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = share.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= at <= last")]
    let below = at as usize;
    let low = sorted.get(below).copied().unwrap_or_default();
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * at.fract()
}

fn find(round: &[(Kind, Sample)], kind: Kind) -> Option<&Sample> {
    round.iter().find_map(|(found, sample)| (*found == kind).then_some(sample))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::cases::Mode;

    fn sample(per_second: f64) -> Sample {
        Sample { per_second, cpu_us: None, latency: None }
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round_before_the_median() {
        // The machine halves its speed in every other round; the ratio stays what it is.
        let rounds = [100.0, 50.0, 100.0, 10.0]
            .map(|speed| vec![(Kind::Pgbouncer, sample(speed)), (Kind::Written, sample(speed * 0.9))]);
        let case = Case::Read { mode: Mode::Simple, clients: 8 };
        let samples = Samples { case, rounds: rounds.into(), flush_us: Vec::new() };
        let rows = samples.rows();
        assert_eq!(rows.len(), 2);
        let ratio = rows[1].of_pgbouncer.unwrap();
        assert!((ratio.median - 0.9).abs() < 1e-9 && (ratio.least - 0.9).abs() < 1e-9);
        assert!(rows[1].of_direct.is_none());
    }
}
