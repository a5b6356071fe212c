//! Selects the backbone and tasks a command works on.

use super::args::{Args, Spec, spec};
use bundles::container::TrustedKey;
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Error, Options, Result, TaskId, trusted_key};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const STORE: Spec = spec("--store", Some("DIR"), "directory with one *.backbone and its *.task files");
pub const BACKBONE: Spec = spec("--backbone", Some("FILE"), "backbone file, instead of a store's");
pub const TASK: Spec =
    spec("--task", Some("FILE|NAME"), "task bundle, or a task of the store; repeatable (default: all)");
pub const ISA: Spec = spec(
    "--isa",
    Some("NAME"),
    "portable, avx2, avx512, neon or neon-fp16 (default: as packed, else the best)",
);
pub const THREADS: Spec = spec("--threads", Some("N"), "threads of a frame (default: 1)");
pub const TRUST: Spec =
    spec("--trust", Some("FILE"), "public key that files must be signed with; repeatable");

/// The files a command works on.
#[derive(Debug)]
pub struct Files {
    pub backbone: PathBuf,
    pub tasks: Vec<PathBuf>,
    pub trusted: Vec<TrustedKey>,
}

impl Files {
    /// From `--store`, `--backbone`, `--task`, `--trust`.
    ///
    /// # Errors
    /// [`Error::Usage`] for no backbone, more than one, or an unknown task.
    pub fn find(args: &Args) -> Result<Files> {
        let store = args.value("--store").map(Path::new);
        let listed = |extension| store.map_or(Ok(Vec::new()), |store| list(store, extension));
        let backbone = match args.value("--backbone") {
            Some(file) => PathBuf::from(file),
            None => {
                let found = listed("backbone")?;
                match (&found[..], store) {
                    ([one], _) => one.clone(),
                    (_, None) => {
                        return Err(Error::Usage {
                            got: "no backbone".into(),
                            want: "--store DIR, or --backbone FILE with --task FILE".into(),
                        });
                    }
                    (many, Some(store)) => {
                        return Err(Error::Usage {
                            got: format!("{} *.backbone files in {}", many.len(), store.display()),
                            want: "exactly one, or --backbone FILE".into(),
                        });
                    }
                }
            }
        };
        let known = listed("task")?;
        let mut tasks = Vec::new();
        for named in args.values("--task") {
            let in_store = known.iter().find(|path| path.file_stem().is_some_and(|stem| stem == named));
            let path = Path::new(named);
            match in_store {
                Some(found) => tasks.push(found.clone()),
                None if path.exists() || store.is_none() => tasks.push(path.into()),
                None => {
                    let names: Vec<_> = known.iter().filter_map(|path| path.file_stem()).collect();
                    return Err(Error::Usage {
                        got: format!("no task `{named}` in the store"),
                        want: format!("one of {names:?}, or the path of a bundle"),
                    });
                }
            }
        }
        if tasks.is_empty() {
            tasks = known;
        }
        let trusted = args.values("--trust").map(trusted_key).collect::<Result<_>>()?;
        Ok(Files { backbone, tasks, trusted })
    }

    /// Opens the backbone for `isa`, or without one as [`Options::isa`] says, and reports on standard error what
    /// repacking cost and whether this machine could be faster.
    ///
    /// # Errors
    /// As [`Backbone::open`].
    pub fn open(&self, isa: Option<Isa>) -> Result<Arc<Backbone>> {
        let options = Options { isa, trusted: self.trusted.clone() };
        let backbone = Backbone::open(&self.backbone, &options)?;
        let (here, best) = (backbone.isa(), Isa::detect());
        if isa.is_none() && here != best && !here.is_half() {
            eprintln!(
                "{}: packed for {here}; this machine also has {best}, see `tailor pack --target`",
                self.backbone.display()
            );
        }
        let cost = backbone.repacked();
        if cost.kernels > 0 {
            eprintln!(
                "{}: repacked {} kernels for {} in {:.1} ms, {:.1} MiB beside the file; `tailor pack --target` \
                 avoids both",
                self.backbone.display(),
                cost.kernels,
                here,
                cost.time.as_secs_f64() * 1e3,
                cost.bytes as f64 / f64::from(1 << 20)
            );
        }
        Ok(backbone)
    }

    /// # Errors
    /// [`Error::Usage`] if there are no tasks.
    pub fn some_tasks(&self) -> Result<&[PathBuf]> {
        match &self.tasks[..] {
            [] => Err(Error::Usage {
                got: "no task".into(),
                want: "--task FILE, or a store with *.task files".into(),
            }),
            tasks => Ok(tasks),
        }
    }
}

/// Refuses two files with a task of the same name, as there is one slot per name.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_distinct(loaded: &[(TaskId, PathBuf)]) -> Result<()> {
    for (i, (id, path)) in loaded.iter().enumerate() {
        if let Some((_, before)) = loaded[..i].iter().find(|(other, _)| other == id) {
            return Err(Error::Usage {
                got: format!("one task twice, in {} and {}", before.display(), path.display()),
                want: "one of them".into(),
            });
        }
    }
    Ok(())
}

/// Files with this extension, sorted by name.
pub fn list(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Error::File {
        path: directory.display().to_string(),
        action: "list",
        kind: error.kind(),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}
