//! `tailor targets`: lists the devices bundles can be packed for.

use crate::output::out;
use targets::PROFILES;

/// Lists the devices known to `tailor pack --target`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor targets --json")]
pub struct Targets {
    /// One JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
}

impl Targets {
    pub(super) fn run(self) -> anyhow::Result<()> {
        for p in &PROFILES {
            if self.json {
                let line = serde_json::json!({
                    "name": p.name, "about": p.about, "triple": p.triple, "isa": p.isa,
                    "isa_f16": p.isa_f16,
                    "memory_mib": p.memory_mib, "cuda": p.cuda, "jetpack": p.jetpack,
                });
                out!("{line}");
            } else {
                let f16 = p.isa_f16.unwrap_or_default();
                out!("{:<18} {:<7} {f16:<10} {:>6} MiB  {}", p.name, p.isa, p.memory_mib, p.about);
            }
        }
        Ok(())
    }
}
