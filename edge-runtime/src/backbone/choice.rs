//! The choice of an instruction set for a backbone file.

use super::isa_in_files;
use crate::kernels::Isa;
use crate::{Error, Result};
use bundles::container::{Dtype, Layout, Manifest};
use bundles::plan::Owner;

/// The instruction set for the backbone described by `manifest`: the one `asked` for; or the one it is packed
/// for, if this machine supports it; or the fastest one.
///
/// # Errors
/// [`Error::Incompatible`] for half precision on a backbone that is not f16.
pub(super) fn isa(file: &str, manifest: &Manifest, asked: Option<Isa>) -> Result<Isa> {
    let own = || manifest.sections.iter().filter(|section| section.owner == Owner::Backbone);
    // Kernels of bytes have one layout for all.
    let is_int8 = own().any(|section| section.dtype == Dtype::I8);
    let layout = own().find_map(|section| match section.layout {
        Layout::Blocked { isa, .. } if !is_int8 => Some(isa),
        _ => None,
    });
    let packed_for = layout.and_then(|layout| Isa::ALL.into_iter().find(|isa| isa_in_files(*isa) == layout));
    let is_half = match layout {
        Some(_) => packed_for.is_some_and(Isa::is_half),
        None => !is_int8 && own().any(|section| section.dtype == Dtype::F16),
    };
    let best = || {
        let packed_for = packed_for.filter(|isa| isa.runs_here());
        packed_for.or(Isa::detect_half().filter(|_| is_half)).unwrap_or_else(Isa::detect)
    };
    let isa = asked.unwrap_or_else(best);
    if isa.is_half() && !is_half {
        return Err(Error::Incompatible {
            file: file.into(),
            want: "f32 or int8 arithmetic, since it was not packed with --precision f16".into(),
            got: format!("{isa}, chosen with --isa"),
            remedy: "choose another one, or pack the backbone anew (`tailor pack NET --precision f16`)",
        });
    }
    Ok(isa)
}
