//! Progress of long steps on stderr: a bar on a terminal, otherwise a line per epoch; and the user's way to
//! stop them.

use crate::interrupt::Interrupt;
use crate::output::note;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Creates progress bars.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    visible: bool,
    prefix: String,
    interrupt: Interrupt,
    /// Bars of concurrent stages, one below the other.
    bars: MultiProgress,
}

/// A progress bar.
#[derive(Debug)]
pub struct Bar {
    bar: Option<ProgressBar>,
    name: String,
}

impl Progress {
    /// Shows bars on stderr, or lines if it is not a terminal.
    pub fn visible() -> Progress {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        Progress { visible: true, bars, ..Progress::default() }
    }

    /// The same progress, for work that `interrupt` can stop.
    #[must_use]
    pub fn stopped_by(self, interrupt: Interrupt) -> Progress {
        Progress { interrupt, ..self }
    }

    /// The interrupt that can stop the work.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Shows nothing.
    pub fn hidden() -> Progress {
        Progress::default()
    }

    /// The same progress with `name` in front of each stage, for work on several tasks.
    #[must_use]
    pub fn for_task(&self, name: &str) -> Progress {
        Progress { prefix: format!("{name} "), ..self.clone() }
    }

    /// A bar for a stage of `total` steps, `done` of which are already done.
    pub fn stage(&self, name: &str, total: u64, done: u64) -> Bar {
        let name = format!("{}{name}", self.prefix);
        if !self.visible {
            return Bar { bar: None, name };
        }
        let bar = self.bars.add(ProgressBar::new(total));
        let style = "{prefix:>16} [{bar:24}] {eta:>4} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.clone());
        bar.set_position(done);
        bar.reset_eta();
        Bar { bar: Some(bar), name }
    }
}

impl Bar {
    /// Advances by one step; `line` is only called if the bar is visible.
    pub fn step(&self, line: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            if !bar.is_hidden() {
                bar.set_message(line());
            }
        }
    }

    /// Ends an epoch: prints a line where no bar can be drawn, as in a job's log.
    pub fn epoch(&self, line: impl FnOnce() -> String) {
        if self.bar.as_ref().is_some_and(ProgressBar::is_hidden) {
            note!("{}: {}", self.name, line());
        }
    }

    /// Sets the position.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Removes the bar; prints a line where no bar can be drawn.
    pub fn clear(self, line: impl FnOnce() -> String) {
        self.epoch(line);
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    /// Finishes the bar and leaves it on screen with a final message.
    pub fn finish(self, last: &str) {
        if let Some(bar) = self.bar {
            bar.finish_with_message(last.to_string());
        }
    }
}

/// Formats seconds as `45 s`, `12 min` or `3 h 20 min`.
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_rounded_to_what_matters() {
        let cases =
            [(0.4, "0 s"), (89.0, "89 s"), (95.0, "2 min"), (3600.0, "60 min"), (12_000.0, "3 h 20 min")];
        for (seconds, want) in cases {
            assert_eq!(duration(seconds), want);
        }
    }
}
