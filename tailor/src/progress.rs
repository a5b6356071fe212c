//! What a person sees while a long step runs: a bar on stderr when it is a terminal, nothing otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Source of progress bars.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    visible: bool,
    prefix: String,
}

/// One bar.
#[derive(Debug)]
pub struct Bar(Option<ProgressBar>);

impl Progress {
    /// Shows bars on stderr; indicatif itself hides them when stderr is not a terminal.
    pub fn visible() -> Progress {
        Progress { visible: true, prefix: String::new() }
    }

    /// Shows nothing.
    pub fn hidden() -> Progress {
        Progress::default()
    }

    /// The same with `name` in front of each stage, for work that handles several tasks.
    #[must_use]
    pub fn for_task(&self, name: &str) -> Progress {
        Progress { visible: self.visible, prefix: format!("{name} ") }
    }

    /// A bar for a stage of `total` steps of which `done` are behind already.
    pub fn stage(&self, name: &str, total: u64, done: u64) -> Bar {
        if !self.visible {
            return Bar(None);
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
        let style = "{prefix:>16} [{bar:24}] {eta:>4} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(format!("{}{name}", self.prefix));
        bar.set_position(done);
        bar.reset_eta();
        Bar(Some(bar))
    }
}

impl Bar {
    /// One step further; `line` is only asked for when someone can see it.
    pub fn step(&self, line: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
            if !bar.is_hidden() {
                bar.set_message(line());
            }
        }
    }

    /// Sets the position outright.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Ends the bar and leaves it standing with a last word.
    pub fn finish(self, last: &str) {
        if let Some(bar) = self.0 {
            bar.finish_with_message(last.to_string());
        }
    }
}
