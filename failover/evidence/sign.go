package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// signed is what the hub signs: the head in a context, so that the signature is
// good for nothing else.
func signed(run, head string) []byte {
	return []byte("tripod evidence head v1\n" + run + "\n" + head + "\n")
}

// Sign signs the head of a run's chain with the hub's key, in base64.
func Sign(key crypto.Signer, run, head string) (string, error) {
	message, opts := signed(run, head), crypto.SignerOpts(crypto.SHA256)
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		opts = crypto.Hash(0)
	} else {
		sum := sha256.Sum256(message)
		message = sum[:]
	}
	sig, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return "", fmt.Errorf("sign evidence of run %s: %w", run, err)
	}
	return base64.StdEncoding.EncodeToString(sig), nil
}

// VerifySignature checks that signature over head was made by the key of pub.
func VerifySignature(pub crypto.PublicKey, run, head, signature string) error {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return fmt.Errorf("signature of the evidence of run %s is not base64: %w", run, err)
	}
	message := signed(run, head)
	sum := sha256.Sum256(message)
	ok := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, sig)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	default:
		return fmt.Errorf("key of type %T cannot verify evidence: use the hub's certificate", pub)
	}
	if !ok {
		return fmt.Errorf("signature of the evidence of run %s does not fit its head %s: the head was replaced, or another hub signed it", run, head)
	}
	return nil
}
