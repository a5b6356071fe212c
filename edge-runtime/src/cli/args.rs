//! Parses and validates command-line options.

use super::usage;
use edge_runtime::Result;
use edge_runtime::kernels::Isa;

/// An option of a command.
pub struct Spec {
    pub name: &'static str,
    /// Name of its value in the help; `None` for a flag.
    pub value: Option<&'static str>,
    pub about: &'static str,
}

/// Shorthand for option tables.
pub const fn spec(name: &'static str, value: Option<&'static str>, about: &'static str) -> Spec {
    Spec { name, value, about }
}

/// Parsed arguments: options in order, and everything else.
#[derive(Debug, Default)]
pub struct Args {
    options: Vec<(&'static str, String)>,
    pub files: Vec<String>,
}

impl Args {
    /// Accepts `--name value`, `--name=value` and flags; everything after `--` is a file.
    ///
    /// # Errors
    /// [`Error::Usage`] for options the command does not have, or that lack their value.
    pub fn parse(specs: &'static [Spec], words: &[String]) -> Result<Args> {
        let mut args = Args::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                args.files.extend(words.by_ref().cloned());
                break;
            }
            if word == "-" || !word.starts_with('-') {
                args.files.push(word.clone());
                continue;
            }
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
                let names: Vec<_> = specs.iter().map(|spec| spec.name).collect();
                return Err(usage(format!("unknown option `{name}`"), &names.join(", ")));
            };
            let value = match (spec.value, given) {
                (None, None) => String::new(),
                (None, Some(_)) => {
                    return Err(usage(format!("a value for `{name}`"), "none"));
                }
                (Some(_), Some(value)) => value,
                (Some(kind), None) => words
                    .next()
                    .cloned()
                    .ok_or_else(|| usage(format!("`{name}` without a value"), &format!("{name} {kind}")))?,
            };
            args.options.push((spec.name, value));
        }
        Ok(args)
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.options.iter().any(|(own, _)| *own == name)
    }

    /// The last value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of an option, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    /// The last value of an option as a number from 1 to `most`.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not in that range.
    pub fn number(&self, name: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|n| (1..=most).contains(n));
        let want = || format!("a whole number from 1 to {most}");
        number.map(Some).ok_or_else(|| usage(format!("{name} {value}"), &want()))
    }

    /// `--isa`; `None` if it was not given (see [`Options::isa`](edge_runtime::Options::isa)).
    ///
    /// # Errors
    /// [`Error::Usage`] for an instruction set that is unknown or not available.
    pub fn isa(&self) -> Result<Option<Isa>> {
        let Some(name) = self.value("--isa") else { return Ok(None) };
        let isa = name.parse().ok().filter(|isa: &Isa| isa.runs_here());
        isa.map(Some).ok_or_else(|| {
            let names: Vec<_> = Isa::supported().map(Isa::name).collect();
            usage(format!("--isa {name}"), &names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec] =
        &[spec("--task", Some("FILE"), ""), spec("--json", None, ""), spec("--n", Some("N"), "")];

    fn parse(line: &str) -> Result<Args> {
        Args::parse(SPECS, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_and_files_are_separated() {
        let args = parse("a.ppm --task x --json --task=y - -- --json").unwrap();
        assert_eq!(args.files, ["a.ppm", "-", "--json"]);
        assert_eq!(args.values("--task").collect::<Vec<_>>(), ["x", "y"]);
        assert!(args.flag("--json") && !args.flag("--n"));
        assert_eq!(args.number("--n", 9).unwrap(), None);
    }

    #[test]
    fn errors_say_what_was_expected() {
        for (line, hint) in [
            ("--tsak x", "--task"),
            ("--task", "--task FILE"),
            ("--json=1", "none"),
            ("--n 0", "from 1 to 9"),
            ("--n 10", "from 1 to 9"),
            ("--n x", "from 1 to 9"),
            ("-json", "--json"),
        ] {
            let error = parse(line).and_then(|args| args.number("--n", 9)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{line}: {error}");
        }
    }
}
