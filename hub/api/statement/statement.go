// Package statement is what two operators sign before a hub is recovered from
// the loss of its majority or restored from a backup (safety.md section 9). The
// hub's program writes it, tripodctl signs it, both offline.
package statement

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Actions that need a statement.
const (
	Recover = "recover"
	Restore = "restore"
)

// Statement says what is about to be done. Everything that makes the deed what
// it is stands in it, so that a signature is good for nothing else.
type Statement struct {
	Action string `json:"action"`
	// Hub is the cluster ID, in hexadecimal digits.
	Hub string `json:"hub"`
	// Incarnation that will begin.
	Incarnation uint64 `json:"incarnation"`
	// Member that will be the hub's only one.
	Member string `json:"member"`
	// Lost are the members that are given up: whoever signs says that they do not
	// run, and that they will be emptied before they run again.
	Lost []string `json:"lost"`
	// LastIndex is the last entry that the member's data or the backup holds, and
	// Revision the revision at it.
	LastIndex uint64 `json:"lastIndex"`
	Revision  int64  `json:"revision"`
	// Backup is the SHA-256 of the backup file, in hexadecimal digits; empty for
	// a recovery.
	Backup string `json:"backup,omitempty"`
}

// Signature is one operator's, over the exact bytes of a statement.
type Signature struct {
	Operator string `json:"operator"`
	// Value is Ed25519's.
	Value []byte `json:"signature"`
}

// Encode is the form in which a statement is signed and recorded.
func (s Statement) Encode() ([]byte, error) {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the statement: %w", err)
	}
	return append(text, '\n'), nil
}

// Decode reads a statement and refuses one that is not in the form of Encode:
// what was signed must be what is understood.
func Decode(text []byte) (Statement, error) {
	var s Statement
	if err := json.Unmarshal(text, &s); err != nil {
		return Statement{}, fmt.Errorf("read the statement: %w", err)
	}
	again, err := s.Encode()
	if err != nil {
		return Statement{}, err
	}
	if string(again) != string(text) {
		return Statement{}, errors.New("the statement is not as tripod-hub printed it: print it again, and give every operator the same file")
	}
	return s, nil
}

// domain keeps a signature of a statement from meaning anything else.
const domain = "tripod.dev/statement/v1\n"

// Sign signs the exact bytes of a statement.
func Sign(text []byte, operator string, key ed25519.PrivateKey) (Signature, error) {
	if _, err := Decode(text); err != nil {
		return Signature{}, err
	}
	return Signature{Operator: operator, Value: ed25519.Sign(key, append([]byte(domain+operator+"\n"), text...))}, nil
}

// Required is how many different operators must sign.
const Required = 2

// Verify returns the operators whose signatures of text are good, and an error
// when they are fewer than Required. keys are the registered ones, by operator.
func Verify(text []byte, signatures []Signature, keys map[string]ed25519.PublicKey) ([]string, error) {
	var good []string
	used := map[string]string{} // key to operator
	for _, s := range signatures {
		key, ok := keys[s.Operator]
		switch {
		case !ok:
			return nil, fmt.Errorf("operator %q has no key that this hub knows: the hub knows those of %s", s.Operator, operators(keys))
		case !ed25519.Verify(key, append([]byte(domain+s.Operator+"\n"), text...), s.Value):
			return nil, fmt.Errorf("the signature of operator %q is not of this statement: have the same file signed again", s.Operator)
		case slices.Contains(good, s.Operator):
			return nil, fmt.Errorf("operator %q signed twice: a second operator must sign", s.Operator)
		case used[string(key)] != "":
			return nil, fmt.Errorf("operators %q and %q have one key: a second operator must sign with a key of their own", used[string(key)], s.Operator)
		}
		good, used[string(key)] = append(good, s.Operator), s.Operator
	}
	if len(good) < Required {
		return nil, fmt.Errorf("%d of %d signatures: have the statement signed by another of the operators %s", len(good), Required, operators(keys))
	}
	return good, nil
}

func operators(keys map[string]ed25519.PublicKey) string {
	var names []string
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}
