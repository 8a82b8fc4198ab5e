package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// The functions here read one level of JSON each and are stricter than encoding/json, which takes the last of two
// members of one name, takes Name for name, and quotes what it did not like in its errors.

// listOf returns the elements of a JSON list.
func listOf(text []byte) ([]json.RawMessage, error) {
	if !json.Valid(text) {
		return nil, errors.New("it is no valid JSON")
	}
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil || list == nil {
		return nil, errors.New("it is no JSON list")
	}
	return list, nil
}

// membersOf returns the members of a JSON object.
func membersOf(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("it is no valid JSON")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("it is no valid JSON")
		}
		key, _ := name.(string)
		if _, twice := members[key]; twice {
			return nil, errors.New("it has two members of one name")
		}
		members[key] = value
	}
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("it is no valid JSON")
	}
	return members, nil
}

// textOf returns what a JSON string stands for.
func textOf(text []byte) (string, bool) {
	if len(text) == 0 || text[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(text, &s)
	return s, err == nil
}
