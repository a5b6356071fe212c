//! `tailor prune`: the pruning stage of `fit`, candidate by candidate, here or as cluster jobs.

use crate::Error;
use crate::cmd::fit::Fit;
use crate::fit::Attempt;
use crate::output::text;
use crate::shell::quoted;
use clap::ValueEnum;
use std::fmt::Write;

/// Retrains pruned candidates of a `fit`: one (--drop) or all of a sweep (--sweep), here or on a cluster.
///
/// Takes the options of `fit` and reuses what `fit` has already done in the work folder. Once --drop has run
/// for every number of blocks, `fit --search sweep` with the same options fine-tunes the best candidates,
/// selects and packs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: tailor prune --backbone net.backbone --data photos.zip --work run/photos --drop 3\n          \
                        tailor prune --backbone net.backbone --data photos.zip --work run/photos --sweep --emit slurm > \
                        sweep.sh\n          bash sweep.sh"
)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["drop", "sweep"]))]
pub struct Prune {
    /// Drop this many blocks and retrain the rest.
    #[arg(long, value_name = "N")]
    drop: Option<usize>,
    /// Try every number of dropped blocks, --jobs at a time; then fine-tune the best, select and pack.
    #[arg(long)]
    sweep: bool,
    /// Print a script that runs the sweep on a scheduler: teacher and student, a job array, selection.
    #[arg(long, value_enum, value_name = "SCHEDULER", requires = "sweep", conflicts_with = "drop")]
    emit: Option<Scheduler>,
    /// Option of `sbatch` for all jobs of --emit slurm, such as --sbatch=--cpus-per-task=4; may be repeated.
    /// A job uses the cores that it is given.
    #[arg(
        long,
        value_name = "OPTION",
        requires = "emit",
        conflicts_with = "drop",
        allow_hyphen_values = true
    )]
    sbatch: Vec<String>,
    #[command(flatten)]
    fit: Fit,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scheduler {
    Slurm,
}

impl Prune {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match (self.drop, self.emit) {
            (Some(dropped), _) => self.fit.sweeping("--drop")?.run_candidate(dropped),
            (None, None) => self.fit.sweeping("--sweep")?.run(),
            (None, Some(Scheduler::Slurm)) => {
                let (name, work, blocks) = self.fit.sweeping("--sweep")?.about_sweep()?;
                let program =
                    std::env::current_exe().map_err(Error::io(std::path::Path::new("this program")))?;
                let args = std::env::args_os().skip(1);
                let args = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
                let options: Vec<String> =
                    without_sweep(args).iter().map(|arg| quoted(arg.as_ref())).collect();
                let sbatch: Vec<String> = self.sbatch.iter().map(|option| quoted(option.as_ref())).collect();
                let program = quoted(program.as_os_str());
                text(&slurm(&name, &work, blocks, &program, &options.join(" "), &sbatch));
                Ok(())
            }
        }
    }
}

/// The outcome of an attempt, as a line of text.
pub(super) fn say(attempt: &Attempt) -> String {
    match attempt {
        Attempt::Trained(c) => format!(
            "{} dropped: validation {:.1} %, {} multiply-adds, {} parameters",
            c.dropped,
            100.0 * c.validation.accuracy(),
            crate::fit::count(c.macs),
            crate::fit::count(c.params)
        ),
        Attempt::Refused { dropped, why } => format!("{dropped} dropped: refused: {why}"),
        Attempt::Diverged { dropped, why } => format!("{dropped} dropped: diverged: {why}"),
        Attempt::Over { dropped, why, .. } => format!("{dropped} dropped: over the budget: {why}"),
    }
}

/// The command line of the `fit` this sweep belongs to, without what makes it a sweep: each job adds that in its
/// own way.
fn without_sweep(args: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut args = args.into_iter().skip_while(|arg| arg != "prune").skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--sweep" | "--emit=slurm" | "--search=sweep" | "--until=pack" => {}
            "--emit" | "--search" | "--until" | "--sbatch" => drop(args.next()),
            option if option.starts_with("--sbatch=") => {}
            _ => kept.push(arg),
        }
    }
    kept
}

/// A script that submits three jobs, each waiting for the one before. Logs go to the work folder.
///
/// Slurm expands `%` patterns anywhere in a log's path, including the current folder, and jobs whose log
/// cannot be opened fail silently. With `--clusters` or `SBATCH_CLUSTERS`, `--parsable` appends `;` and the
/// cluster's name.
fn slurm(name: &str, work: &str, blocks: usize, program: &str, options: &str, sbatch: &[String]) -> String {
    let (title, folder) = (quoted(name.as_ref()), quoted(work.as_ref()));
    let mut script = format!(
        "#!/bin/bash\n\
         # Tailors {name} on a Slurm cluster: teacher and student; one job per number of dropped blocks; the choice.\n\
         # Submit with `bash FILE` from a folder that all nodes can see. sbatch options (partition, account, time) may\n\
         # also be set with SBATCH_PARTITION and so on. After a failure, submit again to resume.\n\
         set -euo pipefail\n\
         mkdir -p {folder}\n\
         # Slurm expands % in log file names.\n\
         logs=$(CDPATH= cd {folder} && pwd)\n\
         logs=${{logs//\\%/%%}}\n"
    );
    let given: String = sbatch.iter().map(|option| format!("{option} ")).collect();
    let mut submit = |variable: &str, step: &str, more: &str, command: &str| {
        let job = quoted(format!("{name}-{step}").as_ref());
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "\n{variable}=$(sbatch --parsable --job-name={job} --output=\"$logs/slurm-{step}-%j.log\" {given}{more}<<'JOB'\n\
             #!/bin/bash\n\
             # Without control groups, a job sees all cores of its node, whatever it was given.\n\
             export RAYON_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-${{SLURM_CPUS_ON_NODE:-1}}}}\n{command}\nJOB\n)\n{variable}=${{{variable}%%;*}}\n"
        );
    };
    // The search shapes neither teacher nor student, but other options may need it.
    let begin = format!("exec {program} fit {options} --search sweep --until train");
    submit("student", "student", "", &begin);
    let array = format!("--array=0-{blocks} --dependency=afterok:$student --kill-on-invalid-dep=yes ");
    submit(
        "sweep",
        "prune",
        &array,
        &format!("exec {program} prune {options} --drop \"$SLURM_ARRAY_TASK_ID\""),
    );
    let after = "--dependency=afterok:$sweep --kill-on-invalid-dep=yes ";
    submit("choice", "choose", after, &format!("exec {program} fit {options} --search sweep"));
    let _ = writeln!(script, "\necho {title}: jobs $student, $sweep, $choice");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_and_emit_are_mutually_exclusive() {
        use clap::Parser;
        let prune = |more: &[&str]| {
            let fit = ["tailor", "prune", "--backbone", "b", "--data", "d", "--work", "w"];
            crate::cmd::Cli::try_parse_from(fit.iter().chain(more)).map(|_| ()).map_err(|error| error.kind())
        };
        assert_eq!(prune(&["--sweep", "--emit", "slurm"]), Ok(()));
        for with in [["--emit", "slurm"], ["--sbatch", "--mem=4G"]] {
            let refused = prune(&["--drop", "1", with[0], with[1]]);
            assert_eq!(refused, Err(clap::error::ErrorKind::ArgumentConflict), "{with:?}");
        }
    }

    #[test]
    fn sweep_options_are_removed_from_the_fit_command() {
        let args = "prune --data x.zip --emit slurm --sbatch --mem=4G --sweep --until pack --seed 3 --until=pack --search=sweep \
             --sbatch=--nodelist=n[1-2]";
        let kept = without_sweep(args.split(' ').map(String::from).collect());
        assert_eq!(kept, ["--data", "x.zip", "--seed", "3"]);
    }

    #[test]
    fn every_job_has_options_that_its_command_accepts() {
        use crate::cmd::{Cli, Command};
        use clap::Parser;
        let typed = "prune --backbone b --data d --work w --sweep --emit slurm --jobs 2 --memory 9 --judge answers \
                     --seed 3";
        let options = without_sweep(typed.split(' ').map(String::from).collect()).join(" ");
        let script = slurm("d", "w", 9, "tailor", &options, &[]);
        let jobs = script.lines().filter_map(|line| line.strip_prefix("exec "));
        let jobs: Vec<String> = jobs.map(|job| job.replace("\"$SLURM_ARRAY_TASK_ID\"", "4")).collect();
        assert_eq!(jobs.len(), 3, "{script}");
        for job in &jobs {
            let recipe = match Cli::try_parse_from(job.split(' ')).unwrap().command {
                Command::Fit(fit) => fit.recipe().unwrap(),
                Command::Prune(prune) => prune.fit.sweeping("--drop").unwrap().recipe().unwrap(),
                _ => panic!("{job}"),
            };
            assert_eq!((recipe.search, recipe.seed), (crate::fit::Search::Sweep, 3), "{job}");
        }
    }
}
