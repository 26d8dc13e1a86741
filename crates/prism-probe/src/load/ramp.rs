//! How often something is due over the time of a run.

use std::{str::FromStr, time::Duration};

/// No generator in one process is asked for more.
const FASTEST: f64 = 1_000_000.0;

/// A shape as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Shape {
    /// The same rate all the time.
    #[default]
    Constant,
    /// From nothing to the rate within this time, and then constant.
    Up(Duration),
    /// Evenly from one rate to another one.
    Linear(f64, f64),
    /// One rate after the other, each for an equal part of the time.
    Steps(Vec<f64>),
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "constant" if rest.is_empty() => Ok(Self::Constant),
            "up" => Ok(Self::Up(prism_core::config::parse_duration(rest)?)),
            "linear" => {
                let (from, to) = rest
                    .split_once("..")
                    .ok_or_else(|| "expected two rates such as `linear:10..1000`".to_owned())?;
                let (from, to) = (rate_or_zero(from)?, rate_or_zero(to)?);
                if from + to == 0.0 {
                    return Err("nothing would ever be due".to_owned());
                }
                Ok(Self::Linear(from, to))
            }
            "steps" => Ok(Self::Steps(rest.split(',').map(rate).collect::<Result<_, _>>()?)),
            _ => Err("expected `constant`, `up:TIME`, `linear:FROM..TO` or `steps:RATE,RATE,...`".to_owned()),
        }
    }
}

/// A rate in operations a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    rate_or_zero(text).and_then(|rate| {
        (rate > 0.0)
            .then_some(rate)
            .ok_or_else(|| "a rate must be more than 0".to_owned())
    })
}

fn rate_or_zero(text: &str) -> Result<f64, String> {
    let rate = text.trim().parse::<f64>().ok();
    rate.filter(|rate| (0.0..=FASTEST).contains(rate))
        .ok_or_else(|| format!("expected a number a second, at most {FASTEST}, not `{text}`"))
}

/// When each of a run's operations is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ramp {
    pieces: Vec<Piece>,
}

/// A stretch of time over which the rate changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    from: f64,
    to: f64,
    seconds: f64,
}

impl Ramp {
    /// A shape, in numbers.
    ///
    /// # Errors
    /// For a shape that needs a rate and has none, has one and needs none, or does not fit into the time.
    pub(crate) fn new(shape: &Shape, rate: Option<f64>, length: Duration) -> Result<Self, String> {
        let seconds = length.as_secs_f64();
        let piece = |from, to, seconds| Piece { from, to, seconds };
        let pieces = match (shape, rate) {
            (Shape::Constant, Some(rate)) => vec![piece(rate, rate, seconds)],
            (Shape::Up(up), Some(_)) if *up > length => {
                return Err("the way up is longer than the run".to_owned());
            }
            (Shape::Up(up), Some(rate)) => {
                let up = up.as_secs_f64();
                vec![piece(0.0, rate, up), piece(rate, rate, seconds - up)]
            }
            (Shape::Linear(from, to), None) => vec![piece(*from, *to, seconds)],
            (Shape::Steps(rates), None) => {
                let part = seconds / rates.len() as f64;
                rates.iter().map(|&rate| piece(rate, rate, part)).collect()
            }
            (Shape::Constant | Shape::Up(_), None) => return Err("give it a --rate".to_owned()),
            (_, Some(_)) => return Err("such a ramp has its own rates, leave --rate out".to_owned()),
        };
        Ok(Self { pieces })
    }

    /// How many operations there are.
    pub(crate) fn total(&self) -> u64 {
        let all: f64 = self.pieces.iter().map(Piece::count).sum();
        // What is whole on paper may be a hair less in doubles.
        (all + 1e-6) as u64
    }

    /// How long it takes.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.pieces.iter().map(|piece| piece.seconds).sum())
    }

    /// When the operation of this number is due, counted from the beginning; `None` after the last.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.total() {
            return None;
        }
        let (mut left, mut passed) = (number as f64, 0.0);
        for piece in &self.pieces {
            let count = piece.count();
            if left < count {
                return Some(Duration::from_secs_f64(passed + piece.moment(left)));
            }
            left -= count;
            passed += piece.seconds;
        }
        Some(self.length())
    }
}

impl Piece {
    fn count(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// When so many have been due: the root of `from * t + slope / 2 * t^2 = count`, in the form that also
    /// holds where the rate does not change.
    fn moment(&self, count: f64) -> f64 {
        if count == 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        (2.0 * count / (self.from + root)).min(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ramp(shape: &str, rate: Option<f64>) -> Ramp {
        Ramp::new(&shape.parse().unwrap(), rate, MINUTE).unwrap()
    }

    fn all(ramp: &Ramp) -> Vec<Duration> {
        (0..).map_while(|number| ramp.due(number)).collect()
    }

    #[test]
    fn a_constant_rate_is_due_at_even_distances() {
        let ramp = ramp("constant", Some(100.0));
        assert_eq!(ramp.total(), 6_000);
        assert_eq!(ramp.due(0), Some(Duration::ZERO));
        assert_eq!(ramp.due(150), Some(Duration::from_millis(1_500)));
        assert_eq!(ramp.due(6_000), None);
        assert_eq!(ramp.length(), MINUTE);
    }

    #[test]
    fn every_shape_has_as_many_as_its_area_in_order_and_within_its_time() {
        for (shape, rate, total) in [
            ("constant", Some(0.5), 30),
            ("up:20s", Some(30.0), 300 + 1_200),
            ("linear:0..100", None, 3_000),
            ("linear:100..0", None, 3_000),
            ("steps:10,20,30", None, 20 * 60),
        ] {
            let ramp = ramp(shape, rate);
            let dues = all(&ramp);
            assert_eq!((dues.len(), ramp.total()), (total, total as u64), "{shape}");
            assert!(dues.is_sorted(), "{shape}");
            assert!(dues.iter().all(|due| *due <= MINUTE), "{shape}");
        }
    }

    #[test]
    fn each_part_has_its_rate() {
        let within = |dues: &[Duration], from: u64, to: u64| {
            let range = Duration::from_secs(from)..Duration::from_secs(to);
            dues.iter().filter(|due| range.contains(due)).count()
        };
        let steps = all(&ramp("steps:10,20,30", None));
        assert_eq!([within(&steps, 0, 20), within(&steps, 20, 40)], [200, 400]);
        let rising = all(&ramp("linear:0..100", None));
        // A quarter of the area lies in the first half.
        assert_eq!(within(&rising, 0, 30), 750);
    }

    #[test]
    fn what_is_no_ramp_says_why() {
        for (shape, part) in [
            ("", "expected `constant`"),
            ("constant:1", "expected `constant`"),
            ("up", "no duration"),
            ("linear:1", "two rates"),
            ("linear:0..0", "nothing"),
            ("linear:-1..5", "a number a second"),
            ("steps:", "a number a second"),
            ("steps:1,0", "more than 0"),
            ("steps:nan", "a number a second"),
        ] {
            let error = shape.parse::<Shape>().unwrap_err();
            assert!(error.contains(part), "`{shape}`: {error}");
        }
        for (shape, rate) in [
            ("constant", None),
            ("up:61s", Some(1.0)),
            ("steps:1", Some(1.0)),
            ("up:1s", None),
        ] {
            assert!(
                Ramp::new(&shape.parse().unwrap(), rate, MINUTE).is_err(),
                "{shape}"
            );
        }
    }
}
