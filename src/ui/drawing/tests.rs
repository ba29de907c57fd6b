use super::*;

fn drawing(arrows: &[(usize, usize)], names: &[&str]) -> Drawing {
    let node = |(i, name): (usize, &&str)| Node {
        name: (*name).to_owned(),
        detail: "kind".to_owned(),
        more: format!("<more & \"{name}\">"),
        state: State::ALL[i % 4],
    };
    Drawing { title: "a <b>".to_owned(), nodes: names.iter().enumerate().map(node).collect(), arrows: arrows.to_vec() }
}
