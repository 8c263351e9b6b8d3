package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// ProtocolJoin is the ALPN name of the protocol by which a hub member gets the
// hub's bundle, or compares its CA, from another member. DESIGN.md has it.
const ProtocolJoin = "tripod-join/1"

const (
	joinTimeout    = 10 * time.Second
	maxJoinMessage = 64 << 10
	nonceBytes     = 32
	exporterLabel  = "EXPORTER-tripod-join-1"
)

// Purposes of a joiner.
const (
	purposeFetch   = "fetch"   // give me the bundle
	purposeCompare = "compare" // which CA have you?
)

// joinHello opens the exchange; joiner to server.
type joinHello struct {
	Purpose string `json:"purpose"`
	Member  string `json:"member"`
	Nonce   []byte `json:"nonce"`
	// Understands is the highest level of the command set that the joiner's program
	// understands; 0 is a build from before levels. Nothing rests on it: a member
	// that is too old is refused by the store all the same.
	Understands uint32 `json:"understands,omitempty"`
}

// joinChallenge answers it.
type joinChallenge struct {
	Member  string `json:"member"`
	Nonce   []byte `json:"nonce"`
	Refusal string `json:"refusal,omitempty"`
}

// joinProof shows that the joiner knows the token.
type joinProof struct {
	Proof []byte `json:"proof"`
}

// joinResult shows that the server knows it too, and carries what was asked.
type joinResult struct {
	Refusal       string `json:"refusal,omitempty"`
	Proof         []byte `json:"proof,omitempty"`
	CAFingerprint string `json:"caFingerprint,omitempty"`
	// Trusted are the fingerprints of all CAs that the server trusts, in a rotation.
	Trusted []string       `json:"trusted,omitempty"`
	Bundle  *encodedBundle `json:"bundle,omitempty"`
}

// exchange is what both proofs are about. The exporter (RFC 5705, RFC 8446
// section 7.5) differs on the two halves of a connection that someone has
// broken open, so a proof made on one half is worth nothing on the other.
type exchange struct {
	hello     joinHello
	challenge joinChallenge
	exporter  []byte
}

func newExchange(state tls.ConnectionState, hello joinHello, challenge joinChallenge) (exchange, error) {
	exporter, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return exchange{}, fmt.Errorf("export keying material: %w", err)
	}
	return exchange{hello: hello, challenge: challenge, exporter: exporter}, nil
}

// Sides of the exchange, so that one side's proof cannot be sent back to it.
const (
	sideJoiner = "joiner"
	sideServer = "server"
)

func (e exchange) proof(token []byte, side string) []byte {
	mac := hmac.New(sha256.New, token)
	for _, part := range [][]byte{
		[]byte(ProtocolJoin), []byte(side), []byte(e.hello.Purpose), []byte(e.hello.Member), e.hello.Nonce,
		[]byte(e.challenge.Member), e.challenge.Nonce, e.exporter,
	} {
		// Lengths first: no two lists of parts give the same bytes.
		_ = binary.Write(mac, binary.BigEndian, uint32(len(part))) // a hash never fails
		mac.Write(part)
	}
	return mac.Sum(nil)
}

func (e exchange) verify(token []byte, side string, proof []byte) bool {
	return hmac.Equal(e.proof(token, side), proof)
}

func newNonce() ([]byte, error) {
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("make a nonce: %w", err)
	}
	return nonce, nil
}

// Messages are JSON behind a 32-bit big-endian length.

func writeMessage(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode %T: %w", message, err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readMessage(r io.Reader, message any) error {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxJoinMessage {
		return fmt.Errorf("a message of %d bytes, at most %d are allowed", size, maxJoinMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, message); err != nil {
		return errors.Join(errors.New("not a message of "+ProtocolJoin), err)
	}
	return nil
}
