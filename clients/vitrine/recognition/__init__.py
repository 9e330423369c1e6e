"""Which product does a photo show, or none?

evidence      how much speaks for the best candidate: a number from vectors
curve         from evidence to a probability
calibration   a curve and a threshold for one collection, as a file; `shelf` holds those of a gateway
trials        what is learned from one catalogue picture: taken as a photo of its product, and of none
calibrating   `vitrine calibrate`: samples a collection (`sampling`), tries, fits
votes         what the neighbours say of attributes
recognizing   the answer to one request (`checking`)
"""
