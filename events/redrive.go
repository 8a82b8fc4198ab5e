package events

// HeaderReplayOf is the header of a record that a redrive has published: the origin of its dead letter, as
// GROUP/TOPIC/PARTITION/OFFSET. A letter that the record leads to keeps it, so it says where it came from.
const HeaderReplayOf = "replay-of"
