//! What several tasks on one backbone take in total, with everything shared counted once.

use super::Method;
use super::size::{Parts, Size};
use crate::Result;
use bundles::plan::Plan;

impl Method {
    /// Parameters of all tasks, whose networks have `sizes`, on the backbone of `plan`.
    ///
    /// For methods that leave the backbone's kernels unchanged, those count once and in full, whether or not
    /// a task reads all of them: the device keeps the backbone for the next task. With features, its norms
    /// are shared too, as they are with PackNet, whose tasks also occupy each other's unused weights.
    /// Fine-tuning and LwF share nothing.
    ///
    /// # Errors
    /// Any error of [`Plan::check`].
    pub fn params_together(self, plan: &Plan, sizes: &[Size]) -> Result<u64> {
        let parts = Parts::of(plan)?;
        let own: u64 = sizes.iter().map(|size| size.task_params).sum();
        let all: u64 = sizes.iter().map(|size| size.params).sum();
        let shared = |common: u64| if sizes.is_empty() { 0 } else { common };
        Ok(match self {
            Method::FineTune | Method::Lwf => all,
            Method::Features => shared(parts.kernels + parts.norms) + own,
            Method::PackNet50 | Method::PackNet75 => {
                let common = parts.kernels + parts.norms;
                shared(common) + sizes.iter().map(|size| size.params.saturating_sub(common)).sum::<u64>()
            }
            Method::Piggyback | Method::Dan | Method::Series | Method::Parallel | Method::Tailor => {
                shared(parts.kernels) + own
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::size::Owned;
    use crate::fit::testing::backbone;

    #[test]
    fn what_is_shared_counts_once() {
        let (plan, _) = backbone(4);
        let Parts { kernels, norms, head, .. } = Parts::of(&plan).unwrap();
        // A second task with a larger classifier.
        let heads = [head, 3 * head];
        let sizes = |of: &dyn Fn(u64) -> Size| heads.map(of);
        let mask = kernels.div_ceil(32);
        let whole = sizes(&|head| Size::new(0, Owned { numbers: kernels + norms + head, bits: 0 }, 0));
        let norms_and_head = sizes(&|head| Size::new(kernels, Owned { numbers: norms + head, bits: 0 }, 0));
        let features = sizes(&|head| Size::new(kernels + norms, Owned { numbers: head, bits: 0 }, 0));
        let masks = sizes(&|head| Size::new(kernels, Owned { numbers: norms + head, bits: kernels }, 0));
        // A tailored network that reads a third of the kernels.
        let lean = sizes(&|head| Size::new(kernels / 3, Owned { numbers: 7 + head, bits: 0 }, 0));
        // PackNet's tasks own some of the weights that others left free.
        let mut packed = sizes(&|head| Size::new(0, Owned { numbers: 5 + head, bits: kernels }, 0));
        for (size, head) in packed.iter_mut().zip(heads) {
            size.params = kernels + norms + head + mask;
        }
        let cases = [
            (Method::FineTune, whole, 2 * (kernels + norms) + 4 * head),
            (Method::Lwf, whole, 2 * (kernels + norms) + 4 * head),
            (Method::Features, features, kernels + norms + 4 * head),
            (Method::Piggyback, masks, kernels + 2 * (norms + mask) + 4 * head),
            (Method::Dan, norms_and_head, kernels + 2 * norms + 4 * head),
            (Method::Tailor, lean, kernels + 14 + 4 * head),
            (Method::PackNet75, packed, kernels + norms + 2 * mask + 4 * head),
        ];
        for (method, sizes, want) in cases {
            assert_eq!(method.params_together(&plan, &sizes).unwrap(), want, "{method}");
            assert_eq!(method.params_together(&plan, &[]).unwrap(), 0, "{method}");
        }
    }
}
