//! Organisations: state bodies, invented companies, and the teams and schools of the tales.
//! It does not know how they are tagged: `lexicon` marks them.

use super::decline::Gender::{self, Feminine, Masculine, Neuter};

/// Abbreviations, which do not decline.
pub const ABBREVIATIONS: &[(&str, Gender)] = &[
    ("МЧС", Neuter),
    ("ГИБДД", Feminine),
    ("МВД", Neuter),
    ("ФАС", Feminine),
    ("ООН", Feminine),
    ("Минтранс", Masculine),
    ("Росстат", Masculine),
    ("Минздрав", Masculine),
    ("Роспотребнадзор", Masculine),
    ("Минобрнауки", Neuter),
    ("Центробанк", Masculine),
    ("Росреестр", Masculine),
];
/// Bodies with a declinable head and a fixed tail.
pub const BODIES: &[(&str, Gender, &str)] = &[
    ("Министерство", Neuter, "транспорта"),
    ("Союз", Masculine, "писателей"),
    ("Ассоциация", Feminine, "фермеров"),
    ("Институт", Masculine, "океанологии"),
    ("Министерство", Neuter, "культуры"),
    ("Федерация", Feminine, "бокса"),
    ("Академия", Feminine, "наук"),
    ("Комитет", Masculine, "солдатских матерей"),
    ("Палата", Feminine, "адвокатов"),
    ("Фонд", Masculine, "развития спорта"),
    ("Совет", Masculine, "ветеранов"),
    ("Служба", Feminine, "занятости"),
];
/// Descriptions before a quoted name; they are no part of the name.
pub const HEADS: &[(&str, Gender)] = &[
    ("компания", Feminine),
    ("завод", Masculine),
    ("концерн", Masculine),
    ("холдинг", Masculine),
    ("корпорация", Feminine),
    ("фирма", Feminine),
    ("издательство", Neuter),
    ("агентство", Neuter),
];
/// Quoted names, all invented.
pub const QUOTED: &[&str] = &[
    "Севермаш",
    "Волгахим",
    "Уралтех",
    "Балтпром",
    "Сибирский лён",
    "Новая верфь",
    "Вектор",
    "Тайгалес",
    "Донмет",
    "Красный ткач",
    "Гидросвет",
    "Полимаш",
    "Камстрой",
    "Аэрофорум",
    "Меридиан",
    "Невасталь",
    "Окатранс",
    "Русский кедр",
    "Электрон",
    "Промгарант",
    "Байкалсвязь",
    "Заря Востока",
    "Технорост",
    "Стройаванс",
    "Кварц",
    "Янтарь",
    "Алмазбур",
    "Энергомост",
    "Лидер",
    "Северный путь",
    "Агропоток",
    "Химволокно",
];
/// Descriptions in the tales.
pub const TALE_HEADS: &[(&str, Gender)] =
    &[("команда", Feminine), ("школа", Feminine), ("клуб", Masculine), ("лагерь", Masculine)];
/// Quoted names of the tales.
pub const TALE_QUOTED: &[&str] = &[
    "Вихрь",
    "Родник",
    "Скворец",
    "Метеор",
    "Ласточка",
    "Орлёнок",
    "Чайка",
    "Буревестник",
    "Солнышко",
    "Радуга",
    "Искра",
    "Ромашка",
    "Ракета",
    "Колос",
    "Парус",
    "Светлячок",
    "Гроза",
    "Рубин",
    "Весёлый ветер",
    "Зелёный лист",
];
