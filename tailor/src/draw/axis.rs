//! The axis of a plot: range, tick positions and tick labels.

/// One axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The quantity, with its unit.
    pub label: &'static str,
    /// Whether the scale is logarithmic.
    pub log: bool,
    low: f64,
    high: f64,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &'static str) -> Axis {
        Axis { label, log: false, low: f64::INFINITY, high: f64::NEG_INFINITY }
    }

    /// A logarithmic axis; zero and negative numbers cannot be placed on it.
    pub fn log(label: &'static str) -> Axis {
        Axis { log: true, ..Axis::linear(label) }
    }

    /// Whether `value` can be placed on the axis.
    pub fn takes(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// Extends the range to include `value`.
    pub fn include(&mut self, value: f64) {
        if self.takes(value) {
            (self.low, self.high) = (self.low.min(value), self.high.max(value));
        }
    }

    /// Adds a margin at both ends; an empty range becomes a non-empty one.
    pub(super) fn pad(&mut self) {
        if self.low > self.high {
            (self.low, self.high) = if self.log { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        if self.log {
            let room = (self.high / self.low).powf(0.06).max(1.1);
            (self.low, self.high) = (self.low / room, self.high * room);
        } else {
            let room = if self.high > self.low { 0.06 * (self.high - self.low) } else { 0.5 };
            (self.low, self.high) = (self.low - room, self.high + room);
        }
    }

    /// Position of `value`: 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// At most `most` ticks (`most` is at least two): value and label.
    pub(super) fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let most = most.max(2);
        if self.log { self.log_ticks(most) } else { self.linear_ticks(most) }
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn linear_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / most as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&step| step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let digits = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).map(|v| (v, format!("{v:.digits$}"))).collect()
    }

    /// Powers of ten; with few of them also 2 and 5 times powers; with many, only every second or so. A range
    /// that contains fewer than two of these is so narrow that linear ticks do.
    fn log_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let within = |v: &f64| (self.low..=self.high).contains(v);
        let of = |multiples: &[f64]| -> Vec<f64> {
            (first..=last)
                .flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power)))
                .filter(within)
                .collect()
        };
        let (fine, coarse) = (of(&[1.0, 2.0, 5.0]), of(&[1.0]));
        if fine.len() < 2 {
            return self.linear_ticks(most);
        }
        let mut values = if fine.len() <= most || coarse.len() < 2 { fine } else { coarse };
        let every = values.len().div_ceil(most).max(1);
        values = values.into_iter().step_by(every).collect();
        values.into_iter().map(|v| (v, short(v))).collect()
    }
}

/// A power of ten times 1, 2 or 5, without superfluous zeros.
fn short(value: f64) -> String {
    if (1e-3..1e4).contains(&value) {
        let digits = (-(value.log10() + 1e-9).floor()).max(0.0) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(mut axis: Axis, values: [f64; 2], most: usize) -> Vec<String> {
        values.iter().for_each(|&v| axis.include(v));
        axis.pad();
        axis.ticks(most).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_few_enough() {
        let cases: [(Axis, [f64; 2], usize, &[&str]); 8] = [
            (Axis::linear(""), [0.0, 100.0], 6, &["0", "20", "40", "60", "80", "100"]),
            (Axis::linear(""), [97.1, 98.3], 4, &["97.5", "98.0"]),
            (Axis::linear(""), [3.0, 3.0], 5, &["2.6", "2.8", "3.0", "3.2", "3.4"]),
            (Axis::log(""), [0.01, 10.0], 6, &["0.01", "0.1", "1", "10"]),
            (Axis::log(""), [0.3, 4.0], 6, &["0.5", "1", "2"]),
            (Axis::log(""), [0.31, 0.44], 5, &["0.30", "0.35", "0.40", "0.45"]),
            (Axis::log(""), [0.9, 1.05], 5, &["0.9", "1.0", "1.1"]),
            (Axis::log(""), [1e-8, 10.0], 5, &["1e-8", "1e-6", "1e-4", "0.01", "1"]),
        ];
        for (axis, values, most, want) in cases {
            let got = labels(axis, values, most);
            assert_eq!(got, want, "{values:?}");
        }
    }

    #[test]
    fn there_are_never_more_ticks_than_asked_for_and_all_lie_inside() {
        let mut random = crate::random::Random::new(&[4]);
        for _ in 0..2000 {
            let scale = 10f64.powf(8.0 * random.unit() - 4.0);
            for mut axis in [Axis::linear(""), Axis::log("")] {
                let low = scale * random.unit() + 1e-9;
                axis.include(low);
                axis.include(low + scale * random.unit().powi(3));
                axis.pad();
                let most = 2 + random.below(8);
                let ticks = axis.ticks(most);
                assert!(ticks.len() <= most, "{axis:?}: {ticks:?}");
                assert!(ticks.iter().all(|(v, _)| (-1e-9..=1.0 + 1e-9).contains(&axis.place(*v))));
                let mut labels: Vec<&String> = ticks.iter().map(|(_, label)| label).collect();
                labels.dedup();
                assert_eq!(labels.len(), ticks.len(), "{axis:?}: {ticks:?}");
            }
        }
    }
}
