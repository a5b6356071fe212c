//! Liveness and offsets: all values of a frame in one allocation; values that are never alive together share
//! memory.

use super::step::{Step, ValueId, Work};
use crate::{Error, Result};
use std::ops::Range;

/// Floats per cache line. Values are aligned to one, so that no vector access straddles two.
const LINE: usize = 16;

/// The offset of each value, and the total size.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Range of floats per value; empty for values that no step writes.
    pub ranges: Vec<Range<usize>>,
    /// Floats of the arena.
    pub len: usize,
}

/// Values a step accesses besides the one it writes.
fn reads(step: &Step) -> impl Iterator<Item = ValueId> {
    let (add, sum) = match &step.work {
        Work::Int8(work) => work.reads(),
        _ => (step.epilogue().and_then(|epilogue| epilogue.add).map(|(value, _)| value), None),
    };
    let terms = step.work.terms().iter().map(|term| term.reads);
    [Some(step.reads), add, sum].into_iter().flatten().chain(terms)
}

/// Places values of `sizes` floats so that no two values alive in the same step overlap.
///
/// Largest first, each at the lowest offset that is free over its whole lifetime. `input` is left out,
/// because it has a buffer of its own. `result` stays alive to the end.
///
/// # Errors
/// [`Error::TooLarge`] beyond `limit` floats.
pub(crate) fn place(
    steps: &[Step],
    sizes: &[usize],
    input: ValueId,
    result: ValueId,
    limit: usize,
) -> Result<Layout> {
    // First and last step of each value's lifetime, inclusive.
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; sizes.len()];
    for (at, step) in steps.iter().enumerate() {
        for value in reads(step).chain([step.writes]) {
            if let Some(life) = lives.get_mut(value) {
                *life = Some(life.map_or((at, at), |(first, _)| (first, at)));
            }
        }
    }
    if let Some(Some(life)) = lives.get_mut(result) {
        life.1 = steps.len();
    }
    if let Some(life) = lives.get_mut(input) {
        *life = None;
    }
    let mut order: Vec<ValueId> = (0..sizes.len()).filter(|&v| lives[v].is_some()).collect();
    order.sort_unstable_by_key(|&v| (std::cmp::Reverse(sizes[v]), v));

    let mut ranges = vec![0..0; sizes.len()];
    let mut placed: Vec<(Range<usize>, (usize, usize))> = Vec::with_capacity(order.len());
    let mut len = 0;
    for value in order {
        let Some(life) = lives[value] else { continue };
        let need = sizes[value].next_multiple_of(LINE);
        let mut start = 0usize;
        // `placed` is sorted by offset: walk the gaps between values that are alive at the same time.
        for (taken, other) in &placed {
            if other.1 < life.0 || life.1 < other.0 {
                continue;
            }
            if taken.start >= start.saturating_add(need) {
                break;
            }
            start = start.max(taken.end);
        }
        let end = start.saturating_add(need);
        if end > limit {
            let bytes = |floats: usize| floats.saturating_mul(4);
            return Err(Error::TooLarge {
                what: "activations of the network, in bytes".into(),
                need: bytes(end),
                limit: bytes(limit),
            });
        }
        ranges[value] = start..start + sizes[value];
        let at = placed.partition_point(|(taken, _)| taken.start <= start);
        placed.insert(at, (start..end, life));
        len = len.max(end);
    }
    Ok(Layout { ranges, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::int8;
    use crate::engine::int8::step::{Finish, To};
    use crate::engine::params::Span;
    use crate::engine::step::{Factor, Fused, ProxyTerm};
    use bundles::plan::Shape;

    fn chain(links: &[(ValueId, ValueId)]) -> Vec<Step> {
        let shape = Shape::new(1, 1, 1);
        links
            .iter()
            .map(|&(reads, writes)| Step {
                name: String::new(),
                part: 0,
                gate: None,
                reads,
                writes,
                from: shape,
                to: shape,
                work: Work::GlobalAvgPool,
            })
            .collect()
    }

    #[test]
    fn values_alive_together_do_not_overlap_and_others_share() {
        // links, sizes, expected arena length in lines
        type Case = (&'static [(ValueId, ValueId)], &'static [usize], usize);
        let cases: [Case; 3] = [
            // A plain chain needs space for two values.
            (&[(0, 1), (1, 2), (2, 3), (3, 4)], &[0, 16, 16, 16, 16], 2),
            // Value 1 is read again at the end: three.
            (&[(0, 1), (1, 2), (2, 3), (1, 3)], &[0, 16, 16, 16], 3),
            // A small value fits into the space of a large one that is dead.
            (&[(0, 1), (1, 2), (2, 3), (3, 4)], &[0, 160, 16, 32, 16], 11),
        ];
        for (links, sizes, lines) in cases {
            let steps = chain(links);
            let result = links[links.len() - 1].1;
            let layout = place(&steps, sizes, 0, result, 1 << 20).unwrap();
            assert_eq!(layout.len, lines * LINE, "{links:?}");
            for (reads, writes) in links {
                let (a, b) = (&layout.ranges[*reads], &layout.ranges[*writes]);
                assert!(a.is_empty() || a.end <= b.start || b.end <= a.start, "{links:?}: {a:?} {b:?}");
            }
        }
    }

    #[test]
    fn everything_that_a_sum_of_proxies_reads_outlives_it() {
        let term = |reads| ProxyTerm { source: 0, reads, c_in: 1, weights: Span { start: 0, len: 0 } };
        let at = Span { start: 0, len: 1 };
        let finish =
            Finish { scale: at, shift: at, add: Some((3, at)), terms: Some((4, 1.0)), to: To::Bytes };
        let epilogue = Fused { add: Some((3, Factor::One)), ..Fused::default() };
        let works = [
            (Work::Proxies { terms: vec![term(1), term(2)], epilogue }, 4),
            (Work::Int8(int8::Work::Proxies { terms: vec![term(1), term(2)], finish }), 5),
        ];
        for (work, out) in works {
            let mut links: Vec<_> = (1..out).map(|value| (0, value)).collect();
            links.push((1, out));
            let mut steps = chain(&links);
            steps[out - 1].work = work;
            let sizes: Vec<usize> = (0..=out).map(|value| if value == 0 { 0 } else { LINE }).collect();
            let layout = place(&steps, &sizes, 0, out, 1 << 20).unwrap();
            // Inputs and output lie side by side.
            assert_eq!(layout.len, out * LINE);
            let mut starts: Vec<usize> = layout.ranges[1..].iter().map(|range| range.start).collect();
            starts.sort_unstable();
            starts.dedup();
            assert_eq!(starts.len(), out);
        }
    }

    #[test]
    fn an_arena_beyond_its_limit_is_refused() {
        let steps = chain(&[(0, 1), (1, 2)]);
        let error = place(&steps, &[0, 600, 600], 0, 2, 1000).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 4000, .. }), "{error}");
    }
}
