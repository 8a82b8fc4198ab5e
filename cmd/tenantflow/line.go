package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/service"
)

// A lineChecker turns lines of JSON into messages for one topic. It judges them as the service would.
type lineChecker struct {
	topic    string // with the prefix
	mode     string
	maxBytes int // of a message; 0: not known

	usage  *events.UsageDecoder // set for usage events: it is much faster
	others *events.Decoder

	tolerance time.Duration // how far ahead of the clock an event may be
}

// newLineChecker makes a checker for the topic with this name, given without its prefix.
func newLineChecker(cfg *config.Config, name, mode string) (*lineChecker, error) {
	c := &lineChecker{topic: cfg.TopicPrefix + name, mode: mode, tolerance: service.UsageLimits(cfg).FutureTolerance}
	if name == events.TopicUsage {
		c.usage = events.NewUsageDecoder(events.UsageLimits{FutureTolerance: c.tolerance})
		return c, nil
	}
	var err error
	c.others, err = events.NewDecoder(cfg.TopicPrefix)
	return c, err
}

// check makes a message of a line. The message shares nothing with it.
func (c *lineChecker) check(line []byte) (kafka.Message, *events.Rejection) {
	line = bytes.Clone(line)
	key, value, headers, err := events.ParseStructured(line)
	if err != nil {
		return kafka.Message{}, events.Reject(events.MalformedEnvelope, "%v", err)
	}
	record := &events.Record{Topic: c.topic, Key: key, Value: value, Headers: headers}
	if err := c.decode(record); err != nil {
		return kafka.Message{}, rejectionOf(err)
	}
	if c.mode == modeBinary {
		if value, headers, err = binary(record); err != nil {
			return kafka.Message{}, rejectionOf(err)
		}
	}
	message := kafka.Message{Key: key, Value: value}
	size := len(key) + len(value)
	for _, h := range headers {
		message.Headers = append(message.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		size += len(h.Key) + len(h.Value) + headerFrame
	}
	if size += messageFrame; c.maxBytes > 0 && size > c.maxBytes {
		return kafka.Message{}, events.Reject(events.TooLarge, "the message has %d bytes, the topic takes %d", size, c.maxBytes)
	}
	return message, nil
}

// What Kafka adds to a message and to each of its headers, at most, in bytes.
const (
	messageFrame = 32
	headerFrame  = 10
)

func (c *lineChecker) decode(record *events.Record) error {
	if c.usage != nil {
		var u events.Usage
		return c.usage.Decode(record, time.Now(), &u)
	}
	e, err := c.others.Decode(record)
	if err != nil {
		return err
	}
	return e.CheckTime(time.Now(), c.tolerance)
}

func rejectionOf(err error) *events.Rejection {
	var rejection *events.Rejection
	if errors.As(err, &rejection) {
		return rejection
	}
	return events.Reject(events.MalformedEnvelope, "%v", err)
}

// binary takes a structured event that was found valid apart into headers and data. Attributes keep their text, and
// extensions this service does not know are kept.
func binary(record *events.Record) (value []byte, headers []events.Header, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(record.Value, &members); err != nil {
		return nil, nil, err
	}
	value = members["data"]
	if encoded, ok := members["data_base64"]; ok && string(encoded) != "null" {
		envelope, err := events.ParseEnvelope(record)
		if err != nil {
			return nil, nil, err
		}
		value = envelope.Data
	}
	contentType := []byte("application/json")
	for _, name := range slices.Sorted(maps.Keys(members)) {
		raw := members[name]
		if name == "data" || name == "data_base64" || name == "partitionkey" || string(raw) == "null" {
			continue
		}
		text := string(raw) // a number or a boolean
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &text); err != nil {
				return nil, nil, err
			}
		}
		if name == "datacontenttype" {
			if strings.HasPrefix(strings.ToLower(text), "application/cloudevents") {
				return record.Value, record.Headers, nil // in binary mode that would read as a structured event
			}
			contentType = []byte(text)
			continue
		}
		headers = append(headers, events.Header{Key: "ce_" + name, Value: []byte(text)})
	}
	return value, append(headers, events.Header{Key: "content-type", Value: contentType}), nil
}
