//! How far a network is behind its teacher, and how surely.

/// How a network's right answers compare with its teacher's, image by image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Images that only the teacher gets right.
    pub lost: usize,
    /// Images that only the network gets right.
    pub won: usize,
    /// Images.
    pub n: usize,
}

impl Behind {
    /// Of the two's right answers on the same images.
    pub fn of(teacher: &[bool], network: &[bool]) -> Behind {
        let pairs = || teacher.iter().zip(network);
        Behind {
            lost: pairs().filter(|&(&teacher, &network)| teacher && !network).count(),
            won: pairs().filter(|&(&teacher, &network)| !teacher && network).count(),
            n: teacher.len().min(network.len()),
        }
    }

    /// Teacher's accuracy less the network's.
    pub fn gap(&self) -> f64 {
        (self.lost as f64 - self.won as f64) / self.n.max(1) as f64
    }

    /// Standard error of [`gap`](Behind::gap), which images that both get right or wrong do not add to (that of McNemar's test).
    pub fn error(&self) -> f64 {
        let n = self.n.max(1) as f64;
        (((self.lost + self.won) as f64 / n - self.gap().powi(2)) / n).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_gets_right_says_how_far_behind_and_how_surely() {
        let (teacher, network) = ([true, true, true, false, false], [true, false, false, true, false]);
        let behind = Behind::of(&teacher, &network);
        assert_eq!(behind, Behind { lost: 2, won: 1, n: 5 });
        assert_eq!(behind.gap(), 0.2);
        // Differences 1, 1, -1, 0, 0: their variance is 3 / 5 - 0.2^2.
        assert!((behind.error() - (0.56f64 / 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(Behind::of(&[], &[]).error(), 0.0);
    }
}
