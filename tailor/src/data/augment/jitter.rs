//! How far random changes of brightness, contrast and saturation go.

use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// Brightness, contrast and saturation are each multiplied by a factor from `1 - strength` to `1 + strength`.
/// Written as one strength for all three (`0.3`) or as three (`0.5,0.2,0.2`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Jitter {
    /// Strength of changes in brightness.
    pub brightness: f32,
    /// Strength of changes in contrast.
    pub contrast: f32,
    /// Strength of changes in saturation.
    pub saturation: f32,
}

impl Jitter {
    /// No changes.
    pub const NONE: Jitter = Jitter::all(0.0);

    /// The same strength for all three.
    pub const fn all(strength: f32) -> Jitter {
        Jitter { brightness: strength, contrast: strength, saturation: strength }
    }

    /// Brightness, contrast and saturation.
    pub(super) fn strengths(self) -> [f32; 3] {
        [self.brightness, self.contrast, self.saturation]
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [brightness, contrast, saturation] = self.strengths();
        write!(f, "{brightness}")?;
        if *self != Jitter::all(brightness) {
            write!(f, ",{contrast},{saturation}")?;
        }
        Ok(())
    }
}

impl FromStr for Jitter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Jitter> {
        let numbers: Option<Vec<f32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[strength]) => Ok(Jitter::all(strength)),
            Some(&[brightness, contrast, saturation]) => Ok(Jitter { brightness, contrast, saturation }),
            _ => {
                let want =
                    "one fraction, or three for brightness, contrast and saturation: 0.3 or 0.5,0.2,0.2";
                Err(Error::config(format!("--jitter {text}"), want))
            }
        }
    }
}
