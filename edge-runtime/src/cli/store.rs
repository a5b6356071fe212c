//! Selects the backbone and tasks a command works on.

use super::args::{Args, Spec, spec};
use super::usage;
use bundles::container::{Bundle, TrustedKey};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Error, Options, Result, TaskId, trusted_key};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const STORE: Spec = spec("--store", Some("DIR"), "directory with one *.backbone and its *.task files");
pub const BACKBONE: Spec = spec("--backbone", Some("FILE"), "backbone file, instead of a store's");
pub const TASK: Spec = spec(
    "--task",
    Some("FILE|NAME"),
    "task bundle, or a task of the store, by its file's name or its own; repeatable (default: all)",
);
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
    /// [`Error::Usage`] for no backbone, more than one, or a task that is unknown or ambiguous.
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
                        return Err(usage(
                            "no backbone".into(),
                            "--store DIR, or --backbone FILE with --task FILE",
                        ));
                    }
                    (many, Some(store)) => {
                        return Err(usage(
                            format!("{} *.backbone files in {}", many.len(), store.display()),
                            "exactly one, or --backbone FILE",
                        ));
                    }
                }
            }
        };
        let known = listed("task")?;
        let mut tasks = Vec::new();
        for named in args.values("--task") {
            let in_store = known.iter().find(|path| is_named(path, named));
            let path = Path::new(named);
            match in_store {
                Some(found) => tasks.push(found.clone()),
                None if path.exists() || store.is_none() => tasks.push(path.into()),
                None => tasks.push(holding(&known, named)?),
            }
        }
        if tasks.is_empty() {
            tasks = known;
        }
        let trusted = args.values("--trust").map(trusted_key).collect::<Result<_>>()?;
        Ok(Files { backbone, tasks, trusted })
    }

    /// Refuses the file given as `option` for output, if there is one, when the command reads it or it holds a
    /// backbone or task.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_output(&self, args: &Args, option: &str) -> Result<()> {
        let Some(place) = args.value(option) else { return Ok(()) };
        let Ok(there) = std::fs::canonicalize(place) else { return Ok(()) };
        if !there.is_file() {
            return Ok(());
        }
        // Backbones and tasks are known by their first bytes.
        let mut is_read = is_container(&there);
        for input in args.values("--trust").chain(args.files.iter().map(String::as_str)) {
            is_read |= std::fs::canonicalize(input).is_ok_and(|input| input == there);
        }
        if is_read {
            let got = format!("{option} {place}, which is read or holds a backbone or task");
            return Err(usage(got, "another file"));
        }
        Ok(())
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
            [] => Err(usage("no task".into(), "--task FILE, or a store with *.task files")),
            tasks => Ok(tasks),
        }
    }
}

/// What backbones and tasks begin with.
const START: &[u8; 4] = b"\x89TLR";

/// Whether the file at `path` begins as backbones and tasks do.
fn is_container(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *START
}

/// The bytes of a backbone or task; of anything else only the first ones, as a device may have no end.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let first = file.by_ref().take(16).read_to_end(&mut bytes)?;
        if bytes.starts_with(START) { file.read_to_end(&mut bytes) } else { Ok(first) }
    });
    read.map_err(Error::file(path, "read"))?;
    Ok(bytes)
}

/// Whether the file at `path` has this name, which is without folder and extension.
pub fn is_named(path: &Path, name: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem == name)
}

/// The one of the bundles `files` that says that its task is called `name`.
///
/// # Errors
/// [`Error::Usage`] for none, or more than one.
fn holding(files: &[PathBuf], name: &str) -> Result<PathBuf> {
    let mut found: Option<&PathBuf> = None;
    for path in files {
        let bytes = read(path).unwrap_or_default();
        if Bundle::parse(&bytes).is_ok_and(|bundle| bundle.manifest().name == name) {
            if let Some(other) = found {
                return Err(ambiguous(name, other, path));
            }
            found = Some(path);
        }
    }
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = files.iter().filter_map(|path| path.file_stem()).collect();
        let want = format!("one of {names:?}, or the path of a bundle");
        usage(format!("no task `{name}` in the store"), &want)
    })
}

/// The error for a name that two files have, or their tasks.
pub fn ambiguous(name: &str, one: &Path, other: &Path) -> Error {
    usage(
        format!("task `{name}`, which may be {} or {}", one.display(), other.display()),
        "a name that only one of them has",
    )
}

/// Refuses two files with a task of the same name, as there is one slot per name.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_distinct(loaded: &[(TaskId, PathBuf)]) -> Result<()> {
    for (i, (id, path)) in loaded.iter().enumerate() {
        if let Some((_, before)) = loaded[..i].iter().find(|(other, _)| other == id) {
            return Err(usage(
                format!("one task twice, in {} and {}", before.display(), path.display()),
                "one of them",
            ));
        }
    }
    Ok(())
}

/// Files with this extension, sorted by name. Pipes and devices are left out, as opening or reading one may
/// never end; folders and broken links are not, so that whoever reads them says what is wrong.
pub fn list(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::file(directory, "list"))? {
        let path = entry.map_err(Error::file(directory, "list"))?.path();
        let has_end = |is: std::fs::Metadata| is.is_file() || is.is_dir();
        if path.extension().is_some_and(|own| own == extension) && path.metadata().map_or(true, has_end) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}
