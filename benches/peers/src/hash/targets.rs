//! What the tables set out for, and what became of it.

/// Each target with the figures that meet or miss it.
#[derive(Default)]
pub(crate) struct Targets(Vec<(bool, String)>);

impl Targets {
    /// At most `1/part` of the peer's figure.
    pub(crate) fn part(&mut self, what: &str, theirs: f64, ours: f64, part: f64) {
        let ratio = theirs / ours;
        let told =
            format!("{what}: {ours:.1} to {theirs:.1}, 1/{ratio:.2}, to be at most 1/{part:.2}");
        self.0.push((ratio >= part, told));
    }

    pub(crate) fn at_most(&mut self, what: &str, figure: f64, most: f64) {
        let told = format!("{what}: {figure:.3}, to be at most {most}");
        self.0.push((figure <= most, told));
    }

    pub(crate) fn at_least(&mut self, what: &str, figure: f64, least: f64) {
        let told = format!("{what}: {figure:.3}, to be at least {least}");
        self.0.push((figure >= least, told));
    }

    pub(crate) fn print(&self) {
        println!("targets");
        for (met, told) in &self.0 {
            let met = if *met { "met   " } else { "missed" };
            println!("  {met} {told}");
        }
    }
}
