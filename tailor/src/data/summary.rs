//! Describes what was found: numbers of images, and anything odd about them.

use super::Tally;
use super::found::{Form, Found};

impl Found {
    /// One line: classes, images, and what is missing. `holds_out` means that validation images are taken
    /// from the training images if there are none.
    pub fn summary(&self, holds_out: bool) -> String {
        let (counts, place) = (self.counts(), self.place());
        let (val, test) = match &self.form {
            Form::Folder(..) => ("val/", "test/"),
            Form::Idx(_) => ("validation images", "test images"),
        };
        let of = |count: usize, what: &str| match count {
            0 => format!("no {what}"),
            _ if what.ends_with('/') => format!("{count} in {what}"),
            _ => format!("{count} {what}"),
        };
        let without_labels = self.unlabelled.as_ref().map_or(self.separate, |tally| tally.count);
        let mut parts = vec![
            format!(
                "{} classes, {} training images ({})",
                self.classes().len(),
                counts.train,
                self.balance()
            ),
            of(counts.val, val),
            match without_labels {
                0 => of(counts.test, test),
                count => format!("{count} in test/, without labels"),
            },
        ];
        if counts.val == 0 && holds_out {
            parts[1] += " (the --validation fraction is held out)";
        }
        if let Form::Folder(_, listing) = &self.form
            && !listing.beside.is_empty()
        {
            let folders = listing.beside.iter().map(String::as_str).collect();
            parts.push(format!("ignored: {}", super::missing::list(&folders)));
        }
        format!("{place}: {}", parts.join("; "))
    }

    /// How evenly the images are spread over the classes.
    fn balance(&self) -> String {
        let named = || self.per_class().iter().zip(self.classes());
        let (fewest, most) =
            (named().min_by_key(|(count, _)| **count), named().max_by_key(|(count, _)| **count));
        match (fewest, most) {
            (Some((few, _)), Some((many, _))) if few == many => format!("{few} of each class"),
            (Some((few, rare)), Some((many, common))) => {
                format!("{rare} has {few}, the fewest; {common} {many}, the most")
            }
            _ => String::new(),
        }
    }

    /// Warnings about what may not be intended, one sentence each.
    pub fn oddities(&self) -> Vec<String> {
        let place = self.place();
        let mut odd = Vec::new();
        if let Some(Tally { count, first }) = &self.unlabelled {
            odd.push(format!(
                "{place}: ignoring test/, whose images are in no class folder and so have no labels: {count}, \
                 the first `{first}`"
            ));
        }
        if let Form::Folder(_, listing) = &self.form {
            if let Some(Tally { count, first }) = &listing.passed_over {
                odd.push(format!("{place}: {}", passed_over(*count, first)));
            }
            if let Some(Tally { count, first }) = &listing.nested {
                let class = first.split('/').nth(1).unwrap_or_default();
                odd.push(format!(
                    "{place}: images deeper than train/CLASS/ count as that class: {count}, the first \
                     `{first}` as `{class}`"
                ));
            }
        }
        odd
    }
}

/// The message about `count` files that are not images.
pub(crate) fn passed_over(count: usize, first: &str) -> String {
    format!("ignoring files without a PNG or JPEG extension: {count}, the first `{first}`")
}
