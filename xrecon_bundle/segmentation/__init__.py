"""PTX-Seg: lungs and pneumothorax in a chest CT without training, and what is measured from them."""
