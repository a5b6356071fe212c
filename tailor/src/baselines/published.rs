//! What users are told of each method: the paper it follows, and what differs from it here. The texts are in
//! the methods' files.

use super::adapters::Place;
use super::{Method, dan, features, finetune, lwf, packnet, piggyback, tailored};

impl Method {
    /// The paper, and what differs from it here.
    pub fn published(self) -> &'static str {
        match self {
            Method::FineTune => finetune::PUBLISHED,
            Method::Features => features::PUBLISHED,
            Method::PackNet50 | Method::PackNet75 => packnet::PUBLISHED,
            Method::Piggyback => piggyback::PUBLISHED,
            Method::Lwf => lwf::PUBLISHED,
            Method::Dan => dan::PUBLISHED,
            Method::Series => Place::Series.published(),
            Method::Parallel => Place::Parallel.published(),
            Method::Tailor => tailored::PUBLISHED,
        }
    }

    /// A line about each of `methods`; neighbours [published](Method::published) together share one.
    pub fn described(methods: &[Method]) -> Vec<String> {
        let alike = methods.chunk_by(|one, other| one.published() == other.published());
        let line = |alike: &[Method]| {
            let names: Vec<&str> = alike.iter().map(|method| method.name()).collect();
            format!("{}: {}", names.join(", "), alike[0].published())
        };
        alike.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_about_one_method_or_about_variants_of_one() {
        let lines = Method::described(&Method::ALL);
        assert_eq!(lines.len(), Method::ALL.len() - 1);
        assert!(lines[2].starts_with("packnet-50, packnet-75: Mallya & Lazebnik, CVPR 2018. "), "{lines:?}");
        let one = Method::described(&[Method::PackNet75, Method::Dan]);
        assert!(one[0].starts_with("packnet-75: ") && one[1].starts_with("dan: "), "{one:?}");
    }
}
