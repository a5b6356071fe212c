//! `self-test`: replays each bundle's golden vectors through this engine, on every instruction set here that the backbone fits.

use super::args::{Args, spec};
use super::{Command, complain, json, store};
use bundles::container::golden_input;
use edge_runtime::kernels::Isa;
use edge_runtime::pool::MOST_THREADS;
use edge_runtime::{Error, Result, Session, Task};

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
            "only this instruction set (default: all that are here and that the backbone is packed for)",
        ),
        spec("--threads", Some("N"), "threads of a frame (default: 2)"),
        spec("--json", None, "one JSON object per golden vector"),
    ],
    files: None,
    help: "Exit code 6 when a score is further from its golden value than the bundle allows, or a bundle has no golden vectors.\n\n\
           Example:\n  edge-runtime self-test --store store/\n",
    run,
};

fn run(args: &Args) -> Result<()> {
    let files = store::Files::find(args)?;
    let threads = args.number("--threads", MOST_THREADS)?.unwrap_or(2);
    let all = args.value("--isa").is_none();
    let isas = if all { Isa::available() } else { vec![args.isa()?] };
    if !args.flag("--json") {
        json::print("task\tisa\tseed\tlargest difference\ttolerance\tresult\n")?;
    }
    let mut worst: Option<Error> = None;
    // Why no instruction set could be tested so far.
    let mut untested = None;
    let mut is_tested = false;
    for isa in isas {
        let backbone = match files.open(isa) {
            // A file packed for one of them says nothing of the others.
            Err(error @ Error::Incompatible { .. }) if all => {
                untested.get_or_insert(error);
                continue;
            }
            opened => opened?,
        };
        is_tested = true;
        let mut session = Session::new(threads);
        for path in files.some_tasks()? {
            let task = match Task::load(&backbone, path) {
                Ok(task) => task,
                // The others are tested all the same.
                Err(error) => {
                    complain(&error);
                    continue;
                }
            };
            if task.golden().is_empty() {
                // A test that compares nothing is not passed.
                let why = "it has none to replay; pack it again".to_owned();
                complain(&Error::Health { task: task.name().into(), why });
            }
            let mut input = vec![0.0; task.input().len()];
            for golden in task.golden() {
                golden_input(golden.seed, &mut input);
                let distance = golden.distance(session.run(&task, &input)?);
                let passed = distance <= golden.tolerance;
                let line = if args.flag("--json") {
                    json::Object::new()
                        .text("task", task.name())
                        .text("isa", isa.name())
                        .raw("seed", &golden.seed.to_string())
                        .number("difference", f64::from(distance))
                        .number("tolerance", f64::from(golden.tolerance))
                        .raw("passed", if passed { "true" } else { "false" })
                        .end()
                } else {
                    let result = if passed { "ok" } else { "FAILED" };
                    let (name, seed, tolerance) = (task.name(), golden.seed, golden.tolerance);
                    format!("{name}\t{isa}\t{seed}\t{distance:.3e}\t{tolerance:.1e}\t{result}")
                };
                json::print(&(line + "\n"))?;
                if !passed {
                    worst.get_or_insert(Error::Health {
                        task: task.name().into(),
                        why: format!(
                            "on {isa} a score is {distance:.3e} from its golden value, {:.1e} is allowed",
                            golden.tolerance
                        ),
                    });
                }
            }
        }
    }
    untested.filter(|_| !is_tested).or(worst).map_or(Ok(()), Err)
}
