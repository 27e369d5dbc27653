"""Do zeros make a network robust? Networks x attackers, compared in pairs on the same images, and one figure that answers."""
