//! `self-test`: replays each bundle's golden vectors on every available instruction set the backbone
//! supports.

use super::args::{Args, spec};
use super::{Command, complain, json, store};
use edge_runtime::kernels::Isa;
use edge_runtime::pool::MOST_THREADS;
use edge_runtime::{Error, Replayed, Result, Runtime};

pub const COMMAND: Command = Command {
    name: "self-test",
    about: "Replays the golden vectors of task bundles on this machine",
    options: &[
        store::STORE,
        store::BACKBONE,
        store::TASK,
        store::TRUST,
        spec(
            "--isa",
            Some("NAME"),
            "only this instruction set (default: all available ones that the backbone supports)",
        ),
        spec("--threads", Some("N"), "threads of a frame (default: 2)"),
        spec("--json", None, "one JSON object per golden vector"),
    ],
    files: None,
    help: "Exit code 6 if scores deviate more than the bundle allows (0.02 of the largest in half precision), or it\n\
           has no golden vectors.\n\n\
           Example:\n  edge-runtime self-test --store store/\n",
    run,
};

fn run(args: &Args) -> Result<()> {
    let files = store::Files::find(args)?;
    let threads = args.number("--threads", MOST_THREADS)?.unwrap_or(2);
    let all = args.value("--isa").is_none();
    let isas = if all { Isa::supported().map(Some).collect() } else { vec![args.isa()?] };
    if !args.flag("--json") {
        json::print("task\tisa\tseed\tlargest difference\ttolerance\tresult\n")?;
    }
    // The reason the best instruction set is not tested.
    let mut untested = None;
    let mut is_tested = false;
    for isa in isas {
        let backbone = match files.open(isa) {
            // A file packed for one instruction set cannot be tested on the others.
            Err(error @ Error::Incompatible { .. }) if all => {
                if isa == Some(Isa::detect()) {
                    untested = Some(error);
                }
                continue;
            }
            opened => opened?,
        };
        is_tested = true;
        let mut runtime = Runtime::new(backbone, threads);
        let mut loaded = Vec::new();
        for path in files.some_tasks()? {
            let id = match runtime.load(path) {
                Ok(id) => id,
                // Continue with the others.
                Err(error) => {
                    complain(&error);
                    continue;
                }
            };
            loaded.push((id, path.clone()));
            let mut text = String::new();
            let outcome = runtime.self_test(id, |replayed| text += &line(args.flag("--json"), replayed));
            json::print(&text)?;
            outcome.unwrap_or_else(|error| complain(&error));
            runtime.evict(id)?;
        }
        store::check_distinct(&loaded)?;
    }
    untested.filter(|_| !is_tested).map_or(Ok(()), Err)
}

fn line(as_json: bool, replayed: Replayed<'_>) -> String {
    let Replayed { task, golden, distance, tolerance, passed } = replayed;
    let (name, isa, seed) = (task.name(), task.backbone().isa(), golden.seed);
    if as_json {
        let mut object = json::Object::new();
        object
            .text("task", name)
            .text("isa", isa.name())
            .raw("seed", &seed.to_string())
            .number("difference", f64::from(distance))
            .number("tolerance", f64::from(tolerance))
            .raw("passed", if passed { "true" } else { "false" });
        return object.line();
    }
    let result = if passed { "ok" } else { "FAILED" };
    format!("{name}\t{isa}\t{seed}\t{distance:.3e}\t{tolerance:.1e}\t{result}\n")
}
