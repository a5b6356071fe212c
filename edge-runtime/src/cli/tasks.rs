//! `tasks`: lists the contents of a store without running anything.

use super::args::{Args, Spec, spec};
use super::{Command, complain, json, store, usage};
use bundles::container::{Bundle, Kind, TrustedKey, hex};
use edge_runtime::{Error, Result, trusted_key};
use std::path::{Path, PathBuf};

pub const COMMAND: Command = Command {
    name: "tasks",
    about: "Lists task bundles: name, classes, blocks, bytes, digest, signature",
    options: &[store::STORE, TRUST, spec("--json", None, "one JSON object per task")],
    files: Some(" [FILE...]"),
    help: "FILE may be a directory; every byte of a bundle is verified. The digest identifies a bundle's\n\
           contents, as shown by `tailor inspect`: it differs between versions, and signing keeps it.\n\
           The first 16 digits are listed; --json has all. Other commands take the name listed, or the file's.\n\n\
           Example:\n  edge-runtime tasks --store store/\n",
    run,
};

/// Only names signers: `tasks` refuses nothing.
const TRUST: Spec = spec("--trust", Some("FILE"), "public key whose signatures are named; repeatable");

fn run(args: &Args) -> Result<()> {
    let mut files = Vec::new();
    for place in args.value("--store").into_iter().chain(args.files.iter().map(String::as_str)) {
        match Path::new(place) {
            directory if directory.is_dir() => {
                let found = store::list(directory, "task")?;
                if found.is_empty() {
                    eprintln!("{place}: no *.task file there");
                }
                files.extend(found);
            }
            file => files.push(PathBuf::from(file)),
        }
    }
    if files.is_empty() && args.value("--store").is_none() && args.files.is_empty() {
        return Err(usage("no files".into(), "--store DIR, or files and directories"));
    }
    let trusted = args.values("--trust").map(trusted_key).collect::<Result<Vec<_>>>()?;
    let mut text = String::new();
    if !args.flag("--json") {
        text += "name\tclasses\tblocks\tproxies\tinput\tbytes\tdigest\tsignature\n";
    }
    for path in &files {
        match line(path, &trusted, args.flag("--json")) {
            Ok(line) => text += &line,
            // Continue with the others.
            Err(error) => complain(&error),
        }
    }
    json::print(&text)
}

/// The output for one bundle.
fn line(path: &Path, trusted: &[TrustedKey], as_json: bool) -> Result<String> {
    let file = path.display().to_string();
    let bytes = store::read(path)?;
    let failed = |source| Error::Container { file: file.clone(), source };
    let bundle = Bundle::parse(&bytes).map_err(failed)?;
    let manifest = bundle.manifest();
    if manifest.kind != Kind::Task {
        return Err(usage(format!("{file} is a {}", manifest.kind.word()), "a task"));
    }
    let trust = bundle.verify_sections().and_then(|()| bundle.verify(trusted)).map_err(failed)?;
    let digest = hex(&bundle.digest());
    let (blocks, proxies) = (manifest.plan.blocks(), manifest.plan.proxies());
    let (cells, input) = (manifest.plan.cells.len(), manifest.plan.input);
    if as_json {
        let mut object = json::Object::new();
        object
            .text("name", &manifest.name)
            .text("file", &file)
            .number("classes", manifest.labels.len() as f64)
            .number("blocks", blocks as f64)
            .number("blocks_total", cells as f64)
            .number("proxies", proxies as f64)
            .text("input", &input.to_string())
            .number("bytes", bytes.len() as f64)
            .text("digest", &digest)
            .text("trust", trust.word())
            .text("signature", &trust.to_string());
        return Ok(object.line());
    }
    Ok(format!(
        "{}\t{}\t{blocks}/{cells}\t{proxies}\t{input}\t{}\t{:.16}\t{trust}\n",
        manifest.name,
        manifest.labels.len(),
        bytes.len(),
        digest
    ))
}
