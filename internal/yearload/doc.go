// Package yearload puts a made year ([yearmodel.World]) into the stores, for the benchmark and for tests.
//
// The lives of its companies go through the service's own rules and transactions, event by event, as the consumers apply them. Kafka is left out,
// because a year of events has to be handled as if time passed: what is due to a company in March is done before its event of April, whichever of
// the two topics that is in. Through the consumers, today's clock would end at once what was due last spring.
//
// The usage goes through the service's own insert, in blocks that its views add up. Kafka is left out there, too: how fast usage comes from
// it is measured elsewhere.
package yearload
