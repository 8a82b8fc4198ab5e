-- A part of the templates: the hash of all of a row but its identity and place; of a void with which usage it takes back.
if(sign = 1, {{template "content.sql"}},
    xxHash64(concat(reinterpretAsFixedString({{template "content.sql"}}), voids_source, '\n', voids_id)))
