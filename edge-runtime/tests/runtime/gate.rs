//! Blocks the loader, as a slow disk would.
#![cfg(unix)]

use edge_runtime::Runtime;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A pipe without a writer, from which the loader reads until this is dropped.
pub struct Gate(#[allow(dead_code)] File);

impl Gate {
    /// Returns once the loader is blocked here: all earlier requests are done.
    pub fn before(runtime: &mut Runtime, directory: &Path) -> Gate {
        let mut pipes = (0..).map(|i| directory.join(format!("gate{i}.task")));
        let pipe = pipes.find(|pipe| !pipe.exists()).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        runtime.prefetch(&pipe).unwrap();
        // Returns when the loader has opened the other end.
        Gate(File::options().write(true).open(&pipe).unwrap())
    }

    /// Lets the loader continue; what came through the pipe is not a bundle.
    pub fn open(self, runtime: &mut Runtime) {
        drop(self);
        assert!(runtime.settle().is_err());
        while runtime.poll().is_err() {}
    }
}
