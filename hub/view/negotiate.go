package view

import (
	"cmp"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// form is what a client wants objects as.
type form int

const (
	formObject form = iota
	formTable
	formMetadata
	formDiscovery // apidiscovery.k8s.io/v2, for /api and /apis only
)

// negotiate picks the first form that the client wants and the view can answer.
// Protobuf and CBOR are not among them: clients that prefer them name JSON too.
func negotiate(accept string) (form, bool) {
	if strings.TrimSpace(accept) == "" {
		return formObject, true
	}
	type wish struct {
		form    form
		quality float64
	}
	var wishes []wish
	for part := range strings.SplitSeq(accept, ",") {
		mediaType, params, err := mime.ParseMediaType(part)
		if err != nil || !slices.Contains([]string{"application/json", "application/*", "*/*"}, mediaType) {
			continue
		}
		wanted, ok := formOf(params)
		if !ok {
			continue
		}
		quality := 1.0
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			quality = q
		}
		if quality > 0 {
			wishes = append(wishes, wish{wanted, quality})
		}
	}
	if len(wishes) == 0 {
		return 0, false
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(b.quality, a.quality) })
	return wishes[0].form, true
}

func formOf(params map[string]string) (form, bool) {
	group, version := params["g"], params["v"]
	switch as := params["as"]; {
	case as == "":
		return formObject, true
	case as == "Table" && group == "meta.k8s.io" && version == "v1":
		return formTable, true
	case (as == "PartialObjectMetadata" || as == "PartialObjectMetadataList") && group == "meta.k8s.io" && version == "v1":
		return formMetadata, true
	case as == "APIGroupDiscoveryList" && group == "apidiscovery.k8s.io" && version == "v2":
		return formDiscovery, true
	}
	return 0, false
}
