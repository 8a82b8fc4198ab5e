// Package deadletter reads the dead letter topics for a person: it lists, filters and shows letters, and says how far it looked.
//
// A dead letter is a record of <input topic>.dlq (see events.NewDeadLetter). Its identity is its origin: the consumer group that gave
// up, and the topic, partition and offset of the record it gave up on. The same letter may stand in the topic twice, because the
// consumer writes it again when an acknowledgement is lost; it counts once.
//
// Nothing here needs a store. What was done about a letter (dropped, redriven, settled) is in Postgres, and a caller that wants it
// passes a Keep.
package deadletter
