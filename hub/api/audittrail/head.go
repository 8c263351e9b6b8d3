package audittrail

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Mark says why a head was signed.
type Mark string

// The marks.
const (
	// Begin stands first in each file, and after each restart.
	Begin Mark = "begin"
	// Sign stands after records that no mark vouched for yet.
	Sign Mark = "sign"
	// End stands last in a file that was ended in order.
	End Mark = "end"
)

const (
	annotationMember    = Prefix + "member"
	annotationTrail     = Prefix + "trail"
	annotationMark      = Prefix + "mark"
	annotationTorn      = Prefix + "torn"
	annotationSignature = Prefix + "signature"
)

// Where the hub publishes, for each trail, a head that is durable in the files: in
// its own store, so that a log cannot be cut on one member's disk unseen.
const (
	Namespace = "tripod-system"
	ConfigMap = "audit-heads"
)

// Head vouches for all records of a trail before Sequence, whose last has the hash
// Previous.
type Head struct {
	Member string `json:"member"`
	// Trail is one unbroken chain of a member; a member that lost its files begins
	// another.
	Trail    string    `json:"trail"`
	Mark     Mark      `json:"mark"`
	Sequence uint64    `json:"sequence"`
	Previous string    `json:"previous"`
	At       time.Time `json:"at"`
	// Torn is the hash of a line that was cut off when the member died: the line
	// stands before this mark and is no record. Empty is none.
	Torn string `json:"torn,omitempty"`
	// Signature is Ed25519's over all of the above, in base64.
	Signature string `json:"signature"`
}

// Key is the name of the head in the ConfigMap.
func (h Head) Key() string { return h.Member + "." + h.Trail }

// signed is what the hub signs: the head in a context, so that the signature is
// good for nothing else.
func (h Head) signed() []byte {
	return fmt.Appendf(nil, "tripod audit head v1\n%s\n%s\n%s\n%d\n%s\n%s\n%s\n",
		h.Member, h.Trail, h.Mark, h.Sequence, h.Previous, h.At.UTC().Format(time.RFC3339Nano), h.Torn)
}

// SignWith returns the head with its signature.
func (h Head) SignWith(key ed25519.PrivateKey) Head {
	h.At = h.At.UTC().Truncate(time.Microsecond)
	h.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, h.signed()))
	return h
}

// Verify checks that the key of public signed the head.
func (h Head) Verify(public ed25519.PublicKey) error {
	signature, err := base64.StdEncoding.DecodeString(h.Signature)
	if err != nil || !ed25519.Verify(public, h.signed(), signature) {
		return errors.New("its signature is not the hub's: it was written by somebody else, or the key is of another hub")
	}
	return nil
}

// mark is an audit.k8s.io/v1 Event with the fields that a mark has. It is written
// here, and not by upstream's codec, because a mark has one form for ever.
type mark struct {
	Kind                     string            `json:"kind"`
	APIVersion               string            `json:"apiVersion"`
	Level                    string            `json:"level"`
	AuditID                  string            `json:"auditID"`
	Stage                    string            `json:"stage"`
	RequestURI               string            `json:"requestURI"`
	Verb                     string            `json:"verb"`
	User                     markUser          `json:"user"`
	RequestReceivedTimestamp string            `json:"requestReceivedTimestamp"`
	StageTimestamp           string            `json:"stageTimestamp"`
	Annotations              map[string]string `json:"annotations"`
}

type markUser struct {
	Username string `json:"username"`
}

// Line is the mark as a line of the log, with its line feed, and its hash. Equal
// heads have equal lines.
func (h Head) Line() (line []byte, hash string, err error) {
	at := h.At.UTC().Format(microTime)
	event, err := json.Marshal(mark{
		Kind: "Event", APIVersion: "audit.k8s.io/v1", Level: "Metadata",
		AuditID: h.Trail + "-" + strconv.FormatUint(h.Sequence, 10), Stage: "ResponseComplete",
		RequestURI: "/audit/" + h.Member, Verb: string(h.Mark), User: markUser{"tripod:member:" + h.Member},
		RequestReceivedTimestamp: at, StageTimestamp: at,
		Annotations: map[string]string{
			annotationMember: h.Member, annotationTrail: h.Trail, annotationMark: string(h.Mark),
			annotationTorn: h.Torn, annotationSignature: h.Signature,
		},
	})
	if err != nil {
		return nil, "", fmt.Errorf("encode a mark of the audit log: %w", err)
	}
	return Chain(event, h.Sequence, h.Previous)
}

// microTime is the form of metav1.MicroTime.
const microTime = "2006-01-02T15:04:05.000000Z07:00"

// headOf reads the head of a mark.
func headOf(r record, annotations map[string]string, at string) (Head, error) {
	h := Head{
		Member: annotations[annotationMember], Trail: annotations[annotationTrail], Mark: Mark(annotations[annotationMark]),
		Sequence: r.sequence, Previous: r.previous, Torn: annotations[annotationTorn], Signature: annotations[annotationSignature],
	}
	var err error
	if h.At, err = time.Parse(microTime, at); err != nil {
		return Head{}, fmt.Errorf("read a mark: %w", err)
	}
	return h, nil
}
