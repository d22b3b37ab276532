package controlplane

import "testing"

func TestKindOf_subjects_haveKinds(t *testing.T) {
	for subject, want := range map[string]string{
		"tag:weight-nine":            "tag",
		"custom:tailxds_weight=nine": "attribute",
		`{"weight":"nine"}`:          "grant",
		`["weight"]`:                 "grant",
		"region":                     "region",
		"10.0.0.0/8":                 "device",
		"17":                         "device",
		"":                           "device",
	} {
		if got := kindOf(subject); got != want {
			t.Errorf("%q is %s, want %s", subject, got, want)
		}
	}
}
