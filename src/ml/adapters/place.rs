//! The projections of a model that an adapter chose, each with what it must know of it.
//! It does not know what the adapter does there.

use super::arm::Frozen;
use super::targets::{Selector, last};
use crate::error::{Problem, Result};
use crate::ml::models::{Model, Point};
use crate::ml::weights::Tensors;

/// A projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its position among the model's sites.
    pub site: usize,
    /// The checkpoint's name of it.
    pub name: String,
    /// Its block.
    pub layer: i64,
    /// Width in.
    pub inputs: i64,
    /// Width out.
    pub outputs: i64,
    fan_in_fan_out: bool,
}

impl Place {
    /// The last part of its name.
    pub fn short(&self) -> &str {
        last(&self.name, 1)
    }

    /// The frozen projection, shared with the model whose `weights` these are.
    pub fn frozen(&self, model: &dyn Model, weights: &Tensors) -> Result<Frozen> {
        Frozen::at(&model.sites()[self.site], self.fan_in_fan_out, weights)
    }
}

fn projections(model: &dyn Model) -> impl Iterator<Item = Place> + '_ {
    model.sites().iter().enumerate().filter_map(|(site, at)| match at.point {
        Point::Linear { inputs, outputs, fan_in_fan_out } => {
            Some(Place { site, name: at.name.clone(), layer: at.layer, inputs, outputs, fan_in_fan_out })
        }
        _ => None,
    })
}

/// The chosen projections, in the order of the forward pass; every name of the choice must mean at least one.
pub fn places(model: &dyn Model, selector: &Selector) -> Result<Vec<Place>> {
    let all: Vec<Place> = projections(model).collect();
    if let Some(unknown) = selector.idle(all.iter().map(|place| place.name.as_str())).first() {
        let mut known: Vec<&str> = all.iter().map(Place::short).collect();
        known.sort_unstable();
        known.dedup();
        return Err(Problem::new(format!("the model has no projection `{unknown}`"))
            .expected(format!("names among {}", known.join(", "))));
    }
    Ok(all.into_iter().filter(|place| selector.takes(&place.name, place.layer)).collect())
}

/// Name and layer of every projection.
pub fn all(model: &dyn Model) -> Vec<(&str, i64)> {
    let linear = model.sites().iter().filter(|site| matches!(site.point, Point::Linear { .. }));
    linear.map(|site| (site.name.as_str(), site.layer)).collect()
}

/// The same, apart from the model.
pub fn owned(model: &dyn Model) -> Vec<(String, i64)> {
    all(model).into_iter().map(|(name, layer)| (name.to_owned(), layer)).collect()
}

/// The same as [`all`], of [`owned`].
pub fn borrowed(all: &[(String, i64)]) -> Vec<(&str, i64)> {
    all.iter().map(|(name, layer)| (name.as_str(), *layer)).collect()
}
