//! `probe`: what this machine offers, and what the runtime would use.

use super::args::{Args, spec};
use super::{Command, json, memory};
use edge_runtime::kernels::Isa;
use edge_runtime::{LAYOUT_REVISION, Result};

pub const COMMAND: Command = Command {
    name: "probe",
    about: "Shows this machine's instruction sets and memory, and what would be used for backbones packed for none",
    options: &[spec("--json", None, "one JSON object")],
    files: None,
    help: "Example:\n  edge-runtime probe\n",
    run,
};

fn run(args: &Args) -> Result<()> {
    let available: Vec<_> = Isa::supported().map(Isa::name).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (total, free) = memory::machine().unwrap_or_default();
    let (isa, half) = (Isa::detect(), Isa::detect_half());
    if args.flag("--json") {
        let names: Vec<String> = available.iter().map(|name| format!("\"{name}\"")).collect();
        let mut object = json::Object::new();
        object
            .text("arch", std::env::consts::ARCH)
            .text("os", std::env::consts::OS)
            .text("isa", isa.name())
            .raw("isa_f16", &half.map_or("null".into(), |isa| format!("\"{isa}\"")))
            .raw("available", &json::array(&names))
            .number("channel_block", isa.block() as f64)
            .number("layout_revision", f64::from(LAYOUT_REVISION))
            .number("cores", cores as f64)
            .number("memory_bytes", total as f64)
            .number("memory_available_bytes", free as f64);
        return json::print(&object.line());
    }
    let mib = |bytes: u64| bytes / (1 << 20);
    let for_f16 = half
        .map_or(String::new(), |isa| format!("used for f16\t{isa}, {} channels per block\n", isa.block()));
    json::print(&format!(
        "machine\t{} {}, {cores} cores\nmemory\t{} MiB, {} MiB available\ninstruction sets\t{}\nused\t{isa}, {} \
         channels per block, layout revision {LAYOUT_REVISION}\n{for_f16}",
        std::env::consts::ARCH,
        std::env::consts::OS,
        mib(total),
        mib(free),
        available.join(" "),
        isa.block()
    ))
}
