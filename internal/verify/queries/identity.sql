-- A part of the templates: the hash of a row's identity, as hasher makes it of an event.
xxHash64(concat(event_source, '\n', event_id))
