//! From a comparison to what a person reads: grid tables, the view that templates see, and rendering.
//! It does not know who ran the experiment, the store or the graph.

pub mod chart;
pub mod clusters;
pub mod comparison;
pub mod conclusion;
pub mod decision;
pub mod delta;
pub mod evidence;
pub mod export;
pub mod number;
pub mod overview;
pub mod page;
pub mod recommendation;
pub mod reliability;
pub mod render;
pub mod results;
pub mod sheet;
pub mod table;
pub mod template;
pub mod title;
pub mod verdicts;
pub mod view;
pub mod wording;
