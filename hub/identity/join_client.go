package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// refusal is terminal: asking the same peer again gives the same answer until
// a person has changed a configuration.
type refusal struct{ message string }

func (r *refusal) Error() string { return r.message }

// fetchBundle asks the peers in turn until one gives the bundle, ctx ends, or
// one refuses.
func fetchBundle(ctx context.Context, config Config) (*Bundle, error) {
	for round := 0; ; round++ {
		bundle, err := fetchOnce(ctx, config)
		if err != nil || bundle != nil {
			return bundle, err
		}
		if round%30 == 0 {
			config.Logger.Info("waiting for a member that has the hub's CA", "member", config.Name, "peers", len(config.Peers))
		}
		// Jitter: members that start together do not ask together.
		wait := time.NewTimer(config.JoinRetry/2 + rand.N(config.JoinRetry))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("identity: member %q reached no peer that has the hub's CA: start the bootstrap member: %w", config.Name, ctx.Err())
		case <-wait.C:
		}
	}
}

// fetchOnce asks each peer once. Peers that do not answer are passed over; a
// nil bundle with a nil error means that none answered.
func fetchOnce(ctx context.Context, config Config) (*Bundle, error) {
	for _, peer := range config.Peers {
		bundle, err := fetchFrom(ctx, config, peer)
		var refused *refusal
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("identity: peer %s (%s) refused: %w", peer.Name, peer.Address, err)
		}
		var unreadable *badBundle
		if errors.As(err, &unreadable) {
			return nil, fmt.Errorf("identity: bundle of peer %s (%s): %w", peer.Name, peer.Address, err)
		}
		if err != nil {
			config.Logger.Debug("peer gave no bundle", "member", peer.Name, "error", err)
			continue
		}
		config.Logger.Info("fetched the hub's bundle", "member", peer.Name, "ca", bundle.authorities.shower().Fingerprint())
		return bundle, nil
	}
	return nil, nil
}

// badBundle is what a peer gave and this program cannot read.
type badBundle struct{ cause error }

func (b *badBundle) Error() string { return b.cause.Error() }

// fetchFrom asks one peer for the bundle.
func fetchFrom(ctx context.Context, config Config, peer PeerAddress) (*Bundle, error) {
	result, err := askPeer(ctx, config, peer, purposeFetch)
	if err != nil {
		return nil, err
	}
	if result.Bundle == nil {
		return nil, &badBundle{errors.New("it sent none: it runs another version")}
	}
	bundle, err := result.Bundle.decode()
	if err != nil {
		return nil, &badBundle{err}
	}
	return bundle, nil
}

// askPeer does the joiner's side of tripod-join/1 and believes nothing before
// the peer has proven that it knows the token.
func askPeer(ctx context.Context, config Config, peer PeerAddress, purpose string) (joinResult, error) {
	raw, err := config.Dial("tcp", peer.Address)
	if err != nil {
		return joinResult{}, err
	}
	// The proofs, bound to this connection, stand for the certificate that a
	// member without the CA cannot verify.
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ProtocolJoin},
		ServerName: peer.Name, InsecureSkipVerify: true,
	})
	defer func() { _ = conn.Close() }() // everything wanted has been read
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	if err := conn.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return joinResult{}, err
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		return joinResult{}, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != ProtocolJoin {
		return joinResult{}, fmt.Errorf("%s does not speak %s (got %q): check the peer's address, it is its port 6444", peer.Address, ProtocolJoin, got)
	}
	nonce, err := newNonce()
	if err != nil {
		return joinResult{}, err
	}
	return converse(conn, config, peer, joinHello{Purpose: purpose, Member: config.Name, Nonce: nonce, Understands: config.Understands})
}

func converse(conn *tls.Conn, config Config, peer PeerAddress, hello joinHello) (joinResult, error) {
	if err := writeMessage(conn, hello); err != nil {
		return joinResult{}, err
	}
	var challenge joinChallenge
	if err := readMessage(conn, &challenge); err != nil {
		return joinResult{}, err
	}
	if challenge.Refusal != "" {
		return joinResult{}, &refusal{challenge.Refusal}
	}
	if len(challenge.Nonce) != nonceBytes {
		return joinResult{}, errors.New("the challenge has no nonce")
	}
	if challenge.Member != peer.Name {
		return joinResult{}, &refusal{fmt.Sprintf("it is member %q, not %q: correct the addresses of the members", challenge.Member, peer.Name)}
	}
	exchange, err := newExchange(conn.ConnectionState(), hello, challenge)
	if err != nil {
		return joinResult{}, err
	}
	if err := writeMessage(conn, joinProof{Proof: exchange.proof(config.Token, sideJoiner)}); err != nil {
		return joinResult{}, err
	}
	var result joinResult
	if err := readMessage(conn, &result); err != nil {
		return joinResult{}, err
	}
	if result.Refusal != "" {
		return joinResult{}, &refusal{result.Refusal}
	}
	if !exchange.verify(config.Token, sideServer, result.Proof) {
		return joinResult{}, &refusal{"it does not know the hub token: give every member the same token file, and check that the address is a member's"}
	}
	return result, nil
}
