package v1alpha1

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Fraction is a number from 0 to 1, kept as it was written: 0.5. Empty sets no
// bound.
//
// +kubebuilder:validation:Type=number
// +kubebuilder:validation:Minimum=0
// +kubebuilder:validation:Maximum=1
type Fraction string

// MarshalJSON writes the number.
func (f Fraction) MarshalJSON() ([]byte, error) {
	if f == "" {
		return []byte("null"), nil
	}
	return []byte(f), nil
}

// UnmarshalJSON reads the number.
func (f *Fraction) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*f = ""
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("a fraction is a number from 0 to 1: %w", err)
	}
	*f = Fraction(n)
	return nil
}

// Value is the number, and false if there is none.
func (f Fraction) Value() (float64, bool) {
	v, err := strconv.ParseFloat(string(f), 64)
	return v, err == nil
}
