package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// mapping says what becomes of versions and tokens on their way through.
type mapping struct {
	version func(string) (string, error)
	token   func(string) (string, error)
}

// stamped marks what a cluster says; unstamped takes the mark away from what a
// client says, and fails with errForeign.
func stamped(stamp string) mapping {
	return mapping{
		version: func(v string) (string, error) { return stampVersion(v, stamp), nil },
		token:   func(t string) (string, error) { return stampToken(t, stamp), nil },
	}
}

func unstamped(stamp string) mapping {
	return mapping{
		version: func(v string) (string, error) { return unstampVersion(v, stamp) },
		token:   func(t string) (string, error) { return unstampToken(t, stamp) },
	}
}

// place is what a JSON value is in the shape of Kubernetes' answers.
type place int

const (
	elsewhere place = iota
	objectPlace
	metadataPlace
	listPlace // items, or rows of a table
	eventPlace
	versionPlace
	tokenPlace
	preconditionsPlace
)

// inside is what the value under key is.
func (p place) inside(key string) place {
	switch p {
	case objectPlace:
		switch key {
		case "metadata":
			return metadataPlace
		case "items", "rows":
			return listPlace
		case "object", "deleteOptions": // of a row, of an eviction
			return objectPlace
		case "preconditions":
			return preconditionsPlace
		}
	case eventPlace:
		if key == "object" {
			return objectPlace
		}
	case metadataPlace:
		switch key {
		case "resourceVersion":
			return versionPlace
		case "continue":
			return tokenPlace
		}
	case preconditionsPlace:
		if key == "resourceVersion" {
			return versionPlace
		}
	}
	return elsewhere
}

var errNotJSON = errors.New("it holds something that is not JSON")

// mapJSON passes the versions and tokens of one JSON value through m and leaves
// every other byte as it is.
func mapJSON(in []byte, at place, m mapping) ([]byte, error) {
	s := jsonScan{in: in, mapping: m, out: make([]byte, 0, len(in)+len(in)/16+64)}
	if err := s.value(at, 0); err != nil {
		return nil, err
	}
	return append(s.out, s.in[s.copied:]...), nil
}

type jsonScan struct {
	mapping
	in     []byte
	out    []byte
	pos    int
	copied int // in[:copied] is in out
}

// maxDepth is far deeper than what is looked at: past it nothing is mapped.
const maxDepth = 16

func (s *jsonScan) value(at place, depth int) error {
	s.space()
	if s.pos >= len(s.in) {
		return errNotJSON
	}
	switch c := s.in[s.pos]; {
	case at == elsewhere || depth > maxDepth:
		return s.skip()
	case c == '{':
		return s.members(func() error {
			key, err := s.text()
			if err != nil {
				return err
			}
			if s.space(); s.pos >= len(s.in) || s.in[s.pos] != ':' {
				return errNotJSON
			}
			s.pos++
			return s.value(at.inside(key), depth+1)
		}, '}')
	case c == '[' && at == listPlace:
		return s.members(func() error { return s.value(objectPlace, depth+1) }, ']')
	case c == '"' && at == versionPlace:
		return s.replace(s.version)
	case c == '"' && at == tokenPlace:
		return s.replace(s.token)
	default:
		return s.skip()
	}
}

// members reads what is between the bracket here and end, one by one.
func (s *jsonScan) members(one func() error, end byte) error {
	s.pos++
	for first := true; ; first = false {
		s.space()
		if s.pos >= len(s.in) {
			return errNotJSON
		}
		switch c := s.in[s.pos]; {
		case c == end:
			s.pos++
			return nil
		case c == ',' && !first:
			s.pos++
			s.space()
		case !first:
			return errNotJSON
		}
		if err := one(); err != nil {
			return err
		}
	}
}

func (s *jsonScan) replace(by func(string) (string, error)) error {
	start := s.pos
	old, err := s.text()
	if err != nil {
		return err
	}
	mapped, err := by(old)
	if err != nil {
		return err
	}
	quoted, err := json.Marshal(mapped)
	if err != nil {
		return fmt.Errorf("quote %q: %w", mapped, err)
	}
	s.out = append(append(s.out, s.in[s.copied:start]...), quoted...)
	s.copied = s.pos
	return nil
}

func (s *jsonScan) space() {
	for s.pos < len(s.in) && bytes.IndexByte([]byte(" \t\r\n"), s.in[s.pos]) >= 0 {
		s.pos++
	}
}

// text reads a string and returns it unquoted.
func (s *jsonScan) text() (string, error) {
	start := s.pos
	if err := s.skipString(); err != nil {
		return "", err
	}
	quoted := s.in[start:s.pos]
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return "", errNotJSON
	}
	return text, nil
}

func (s *jsonScan) skipString() error {
	if s.pos >= len(s.in) || s.in[s.pos] != '"' {
		return errNotJSON
	}
	for s.pos++; s.pos < len(s.in); s.pos++ {
		switch s.in[s.pos] {
		case '\\':
			s.pos++
		case '"':
			s.pos++
			return nil
		}
	}
	return errNotJSON
}

// skip passes over a value of any kind.
func (s *jsonScan) skip() error {
	for depth := 0; s.pos < len(s.in); {
		switch c := s.in[s.pos]; c {
		case '"':
			if err := s.skipString(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			s.pos++
		case '}', ']', ',':
			if depth == 0 {
				return nil // of the value around
			}
			if c != ',' {
				depth--
			}
			s.pos++
		default:
			s.pos++
			continue // a literal goes on, and so does what is inside of brackets
		}
		if depth == 0 {
			return nil
		}
	}
	return nil
}
