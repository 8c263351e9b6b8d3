package statement_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/api/statement"
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func TestVerify(t *testing.T) {
	alice, bob, eve := key(1), key(2), key(3)
	keys := map[string]ed25519.PublicKey{"alice": public(alice), "bob": public(bob), "twin": public(alice)}
	text, err := statement.Statement{
		Action: statement.Recover, Hub: "1f", Incarnation: 2, Member: "hub-c", Lost: []string{"hub-a", "hub-b"}, LastIndex: 7,
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(operator string, k ed25519.PrivateKey, text []byte) statement.Signature {
		s, err := statement.Sign(text, operator, k)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	other := bytes.Replace(text, []byte(`"lastIndex": 7`), []byte(`"lastIndex": 8`), 1)
	tests := map[string]struct {
		signatures []statement.Signature
		want       string
	}{
		"two operators":                    {[]statement.Signature{sign("alice", alice, text), sign("bob", bob, text)}, ""},
		"one operator":                     {[]statement.Signature{sign("alice", alice, text)}, "1 of 2 signatures"},
		"nobody":                           {nil, "0 of 2 signatures"},
		"one operator twice":               {[]statement.Signature{sign("alice", alice, text), sign("alice", alice, text)}, "signed twice"},
		"one key under two names":          {[]statement.Signature{sign("alice", alice, text), sign("twin", alice, text)}, "have one key"},
		"a stranger":                       {[]statement.Signature{sign("alice", alice, text), sign("eve", eve, text)}, "no key that this hub knows"},
		"a wrong key":                      {[]statement.Signature{sign("alice", alice, text), sign("bob", eve, text)}, "not of this statement"},
		"another statement":                {[]statement.Signature{sign("alice", alice, text), sign("bob", bob, other)}, "not of this statement"},
		"another's name over a right mark": {[]statement.Signature{sign("alice", alice, text), {Operator: "bob", Value: sign("alice", alice, text).Value}}, "not of this statement"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			good, err := statement.Verify(text, test.signatures, keys)
			switch {
			case test.want == "" && (err != nil || len(good) != 2):
				t.Errorf("got %v, %v", good, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestDecodeRefusesAnotherForm(t *testing.T) {
	text, err := statement.Statement{Action: statement.Restore, Member: "a"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string][]byte{
		"an unknown field":   bytes.Replace(text, []byte(`"action"`), []byte(`"note": "x", "action"`), 1),
		"a field twice":      bytes.Replace(text, []byte(`"hub": ""`), []byte(`"hub": "1", "hub": ""`), 1),
		"another layout":     bytes.TrimSpace(text),
		"something trailing": append(bytes.Clone(text), '\n'),
	} {
		if _, err := statement.Decode(changed); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := statement.Decode(text); err != nil {
		t.Error(err)
	}
}
