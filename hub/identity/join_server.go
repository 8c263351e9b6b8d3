package identity

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"
)

// ServeJoin answers one connection of tripod-join/1 and closes it. conn is
// what a listener with ServerTLS accepted. It returns what went wrong, for the
// caller to log; the joiner has been told as much as it may know.
func (i *Identity) ServeJoin(conn *tls.Conn) error {
	defer func() { _ = conn.Close() }() // the answer has been read, or nobody listens
	if err := conn.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return fmt.Errorf("identity: join from %s: %w", conn.RemoteAddr(), err)
	}
	if err := i.serveJoin(conn); err != nil {
		return fmt.Errorf("identity: join from %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

func (i *Identity) serveJoin(conn *tls.Conn) error {
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	var hello joinHello
	if err := readMessage(conn, &hello); err != nil {
		return fmt.Errorf("read the hello: %w", err)
	}
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	challenge := joinChallenge{Member: i.config.Name, Nonce: nonce, Refusal: i.refuse(hello)}
	if err := writeMessage(conn, challenge); err != nil {
		return fmt.Errorf("send the challenge: %w", err)
	}
	if challenge.Refusal != "" {
		return fmt.Errorf("refused member %q: %s", hello.Member, challenge.Refusal)
	}
	exchange, err := newExchange(conn.ConnectionState(), hello, challenge)
	if err != nil {
		return err
	}
	var proof joinProof
	if err := readMessage(conn, &proof); err != nil {
		return fmt.Errorf("read the proof of %q: %w", hello.Member, err)
	}
	result, err := i.judge(exchange, proof)
	if err != nil {
		return err
	}
	if err := writeMessage(conn, result); err != nil {
		return fmt.Errorf("answer %q: %w", hello.Member, err)
	}
	if result.Refusal != "" {
		return fmt.Errorf("refused member %q: %s", hello.Member, result.Refusal)
	}
	if hello.Purpose == purposeFetch {
		i.config.Logger.Info("gave the hub's bundle to a joining member", "member", hello.Member, "address", conn.RemoteAddr().String())
	}
	return nil
}

// refuse says why hello is refused before any proof; empty if it is not.
func (i *Identity) refuse(hello joinHello) string {
	switch {
	case len(i.config.Token) < minTokenBytes:
		return fmt.Sprintf("member %s has no hub token: give every member the same token file", i.config.Name)
	case len(hello.Nonce) != nonceBytes:
		return fmt.Sprintf("the nonce has %d bytes, wants %d: the joining member speaks another version of %s", len(hello.Nonce), nonceBytes, ProtocolJoin)
	case hello.Purpose != purposeFetch && hello.Purpose != purposeCompare:
		return fmt.Sprintf("purpose %q is unknown: the joining member speaks another version of %s", hello.Purpose, ProtocolJoin)
	case hello.Member == i.config.Name:
		return fmt.Sprintf("member name %q is taken by the member you asked: names are unique in a hub", hello.Member)
	case !i.knows(hello.Member):
		return fmt.Sprintf("the hub does not expect a member %q: tell it first, with tripodctl hub add %s or tripodctl hub replace", hello.Member, hello.Member)
	}
	return ""
}

func (i *Identity) knows(name string) bool {
	if known := i.known.Load(); known != nil && (*known)(name) {
		return true
	}
	return slices.ContainsFunc(i.config.Peers, func(p PeerAddress) bool { return p.Name == name })
}

// tooOld says why the program of a member that wants to join is; empty if it is not.
func (i *Identity) tooOld(hello joinHello) string {
	level := i.level.Load()
	if level == nil || hello.Purpose != purposeFetch {
		return ""
	}
	if understands, inForce := max(hello.Understands, 1), (*level)(); understands < inForce {
		return fmt.Sprintf("the tripod-hub of member %q understands the command set up to level %d, and level %d is in force: "+
			"install the one that the members run (tripodctl hub members shows their versions)", hello.Member, understands, inForce)
	}
	return ""
}

// judge answers a proof. Nothing of the server is shown to one who does not
// know the token.
func (i *Identity) judge(e exchange, proof joinProof) (joinResult, error) {
	if !e.verify(i.config.Token, sideJoiner, proof.Proof) {
		return joinResult{Refusal: fmt.Sprintf(
			"the hub token of member %q is not the one of member %s (or someone sits between them): give every member the same token file",
			e.hello.Member, i.config.Name)}, nil
	}
	if why := i.tooOld(e.hello); why != "" {
		return joinResult{Refusal: why}, nil
	}
	now := i.trust.Load()
	result := joinResult{
		Proof:         e.proof(i.config.Token, sideServer),
		CAFingerprint: now.shower().Fingerprint(),
		Trusted:       now.fingerprints(),
	}
	if e.hello.Purpose == purposeFetch {
		i.encryptionMu.RLock()
		encoded, err := i.bundle.encode(now)
		i.encryptionMu.RUnlock()
		if err != nil {
			return joinResult{}, err
		}
		result.Bundle = &encoded
	}
	return result, nil
}
